"""Task: harvest activations."""

from prefect import task

from saeops.refs import Ref
from tasks.checkout import Checkout
from tasks.retries import RETRIED


@task(name="harvest", task_run_name="harvest", **RETRIED)
def harvest(checkout: Checkout) -> Ref:
    """Activations of every split, as one reference."""
    return checkout.services.harvest(checkout.params)
