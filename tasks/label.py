"""Task: label latents and score the labels."""

from dataclasses import dataclass
from pathlib import Path

from prefect import task

from saeops.refs import Ref
from tasks.checkout import Checkout
from tasks.retries import RETRIED


@dataclass(frozen=True)
class Earlier:
    """A dictionary whose labels are carried over."""

    bundle: str
    """Digest."""
    activations: Path | None
    """Those that it was trained on, if they are at hand."""


@task(name="label", task_run_name="label {catalog.digest:.12}", **RETRIED)
def label(checkout: Checkout, catalog: Ref, earlier: Earlier | None = None) -> Ref:
    """Scored labels for a catalog's latents; those of an earlier dictionary come first, as far as they stand."""
    services = checkout.given(catalog)
    if earlier is None:
        return services.label(checkout.params)
    sets = [earlier.activations] if earlier.activations else []
    return services.label(checkout.params, carry_from=earlier.bundle, activations=sets)
