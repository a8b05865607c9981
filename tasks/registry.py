"""Tasks: tell people about a candidate, make it champion, or go back."""

from typing import TYPE_CHECKING

from prefect import task

from saeops.refs import Ref
from tasks.checkout import Checkout
from tasks.retries import MINUTE_S, RETRIED

if TYPE_CHECKING:
    from saeops.stages.walk import Moved


@task(name="announce", task_run_name="announce {bundle.digest:.12}", timeout_seconds=30 * MINUTE_S, **RETRIED)
def announce(checkout: Checkout, bundle: Ref) -> None:
    """A registered version under the alias `candidate`, for people to find."""
    checkout.given(bundle).announce(checkout.params, bundle)


@task(name="promote", **RETRIED)
def promote(checkout: Checkout, *, force: bool = False, reason: str = "") -> "Moved":
    """Champion, by the protocol; a lost race is not run again: it must be judged anew."""
    return checkout.services.promote(checkout.params, force=force, reason=reason)


@task(name="rollback", task_run_name="roll {name} back to {to}", **RETRIED)
def rollback(checkout: Checkout, name: str, *, to: str, reason: str) -> "Moved":
    """An earlier champion, by the same protocol."""
    return checkout.services.rollback(name, to=to, reason=reason)


@task(name="reconcile", task_run_name="tell MLflow of {name}", **RETRIED)
def reconcile(checkout: Checkout, name: str) -> list[str]:
    """MLflow's versions, aliases and tags as the store has them; a rollback leaves them alone."""
    return [str(repair) for repair in checkout.services.reconcile(name).repairs]
