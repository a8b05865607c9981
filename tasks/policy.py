"""Tasks: what the policy wants done about the dictionary, and doing what needs no build."""

from typing import TYPE_CHECKING

from prefect import task

from saeops.drift.policy.decide import Action, RollBackNow
from tasks.checkout import Checkout
from tasks.retries import RETRIED

if TYPE_CHECKING:
    from saeops.stages.walk import Moved


@task(name="decide", **RETRIED)
def decide(checkout: Checkout, holder: str | None = None) -> Action:
    """The next step, by the registry's records and the time."""
    return checkout.services.next_action(checkout.params, holder=holder)


@task(name="roll back by policy", **RETRIED)
def roll_back(checkout: Checkout, action: RollBackNow) -> "Moved | None":
    """The champion before; None where somebody else moved it first."""
    return checkout.services.roll_back(checkout.params, action)


@task(name="who retrains", **RETRIED)
def retraining(checkout: Checkout) -> bool:
    """Whether somebody retrains the dictionary at the moment."""
    return checkout.services.situation(checkout.params.name).finding.state == "retraining"
