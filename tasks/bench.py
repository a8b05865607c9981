"""Task: ablate and steer."""

from prefect import task

from saeops.refs import Ref
from tasks.checkout import Checkout
from tasks.retries import RETRIED


@task(name="bench", task_run_name="bench {sae.digest:.12}", **RETRIED)
def bench(checkout: Checkout, sae: Ref) -> Ref:
    """Effects of an SAE's latents, beside random directions."""
    return checkout.given(sae).bench(checkout.params)
