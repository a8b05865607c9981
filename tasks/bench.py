"""Task: ablate and steer."""

from prefect import task

from saeops.refs import Ref
from tasks.checkout import Checkout
from tasks.retries import RETRIED


@task(name="bench", task_run_name="bench {labels.digest:.12}", **RETRIED)
def bench(checkout: Checkout, labels: Ref) -> Ref:
    """Effects of latents chosen by their labels, beside random directions."""
    return checkout.given(labels).bench(checkout.params)
