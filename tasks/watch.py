"""Tasks: look for what is new, and tell of it. What is told is told first, and recorded as told after that.

None is tried again: the next look comes by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prefect import task

from saeops.digests import digest_json
from saeops.drift.policy.records import Incident
from saeops.errors import StageMissing
from saeops.sealed import open_sealed
from saeops.stages import review
from saeops.stages.alerts import Alerted
from saeops.stages.drift_records import read_retraining
from saeops.stages.records import read_state
from saeops.stages.watch import NewModel, Watched
from tasks.checkout import Checkout


@dataclass(frozen=True)
class Reviewed:
    """Nothing of a candidate is left to be reviewed: it may be judged again, and promoted."""

    candidate: str
    """Digest, with the decisions sealed in."""
    decided: int


@task(name="look for models")
def look(checkout: Checkout, emit: Callable[[NewModel], None]) -> tuple[Watched, ...]:
    """What each model source shows."""
    return checkout.services.watch(checkout.params, emit=emit)


@task(name="alert")
def alert(checkout: Checkout, channel: Callable[[Incident], None]) -> Alerted:
    """Incidents brought up to date, each told once to Prefect's server, and to the webhook if there is one."""
    return checkout.services.alert(checkout.params, channels={"prefect": channel})


@task(name="look for reviews")
def look_at_review(checkout: Checkout, told: Path, emit: Callable[[Reviewed], None]) -> Reviewed | None:
    """The built candidate, if its review is finished and nobody was told; once for the same decisions.

    Args:
        told: a folder of this machine that remembers what was told. If it is lost, a
            candidate is told of again, and judged again.
    """
    services, name = checkout.services, checkout.params.name
    try:
        built = open_sealed(services.space.bundle, kind="bundle").digest
    except StageMissing:
        return None
    outcome = review.outcome(services.space.bundle, services.ledger)
    retrained, _ = read_retraining(services.store, name)
    passed = retrained is not None and (retrained.candidate, retrained.verdict_outcome) == (built, "pass")
    if not (passed or (outcome.complete and outcome.decided)):
        return None
    registry = read_state(services.store, name)
    found = Reviewed(services.candidate().digest, outcome.decided)
    mark = told / digest_json([name, found.candidate])
    if mark.exists() or found.candidate in (registry.champion, *registry.pinned):
        return None
    emit(found)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    return found
