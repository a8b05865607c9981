"""Task: label latents and score the labels."""

from prefect import task

from saeops.refs import Ref
from tasks.checkout import Checkout
from tasks.retries import RETRIED


@task(name="label", task_run_name="label {catalog.digest:.12}", **RETRIED)
def label(checkout: Checkout, catalog: Ref, carry_from: str | None = None) -> Ref:
    """Scored labels for a catalog's latents; those of an earlier dictionary come first, as far as they stand."""
    return checkout.given(catalog).label(checkout.params, carry_from=carry_from)
