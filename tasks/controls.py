"""Task: train the SAEs that the dictionary is compared with."""

from prefect import task

from saeops.refs import Ref
from tasks.checkout import Checkout
from tasks.retries import RETRIED


@task(name="controls", task_run_name="controls beside {activations.digest:.12}", **RETRIED)
def controls(checkout: Checkout, activations: Ref) -> Ref:
    """SAEs of a model with random weights, and of other seeds on these activations."""
    return checkout.given(activations).controls(checkout.params)
