"""Task: seal everything into one bundle."""

from prefect import task

from saeops.refs import Ref
from tasks.checkout import Checkout
from tasks.retries import RETRIED


@task(name="bundle", task_run_name="bundle {labels.digest:.12} + {effects.digest:.12}", **RETRIED)
def bundle(checkout: Checkout, labels: Ref, effects: Ref) -> Ref:
    """One immutable folder, named by its sha256."""
    return checkout.given(labels, effects).bundle(checkout.params)
