"""Task: train the sparse autoencoder."""

from prefect import task

from saeops.refs import Ref
from tasks.checkout import Checkout
from tasks.retries import RETRIED


@task(name="train", task_run_name="train on {activations.digest:.12}", **RETRIED)
def train(checkout: Checkout, activations: Ref) -> Ref:
    """The SAE trained on these activations."""
    return checkout.given(activations).train(checkout.params)
