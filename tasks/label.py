"""Task: label latents and score the labels."""

from prefect import task

from saeops.refs import Ref
from tasks.checkout import Checkout
from tasks.retries import RETRIED


@task(name="label", task_run_name="label {catalog.digest:.12}", **RETRIED)
def label(checkout: Checkout, catalog: Ref) -> Ref:
    """Scored labels for a catalog's latents."""
    return checkout.given(catalog).label(checkout.params)
