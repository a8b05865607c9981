"""Task: measure the SAE and catalog its latents."""

from typing import TYPE_CHECKING

from prefect import task

from saeops.metrics import read_metrics
from saeops.refs import Ref
from tasks.checkout import Checkout
from tasks.retries import RETRIED
from tasks.showing import show_metrics

if TYPE_CHECKING:
    from saeops.stages.diagnose import Diagnosed


@task(name="diagnose", task_run_name="diagnose {sae.digest:.12}", **RETRIED)
def diagnose(checkout: Checkout, sae: Ref, controls: Ref) -> "Diagnosed":
    """Diagnostics and catalog of an SAE, beside its controls."""
    made = checkout.given(sae, controls).diagnose(checkout.params)
    show_metrics("diagnostics", read_metrics(made.diagnostics.path / "metrics.json"))
    return made
