"""A world in which a dictionary's model changes: what can happen, each as a change of the registry's records."""

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from saeops.digests import digest_json
from saeops.drift.audit.record import AuditOutcome, AuditRecord, LatentCounts
from saeops.drift.policy.config import RetrainConfig
from saeops.drift.policy.facts import Change, Facts
from saeops.drift.policy.lease import Taken, Wanted, stamp, take
from saeops.drift.policy.machine import waits
from saeops.drift.policy.records import ModelSeen, Retraining

NAME = "tiny/blocks.1.resid_post"
START = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
POLICY = RetrainConfig()
HOUR, MONTH = datetime.timedelta(hours=1), datetime.timedelta(days=31)


def at(minutes: float = 0) -> datetime.datetime:
    return START + datetime.timedelta(minutes=minutes)


def audit_of(bundle: str, model: str, outcome: AuditOutcome, when: datetime.datetime, **other: Any) -> AuditRecord:
    values: dict[str, Any] = {
        "name": NAME,
        "bundle": bundle,
        "model": model,
        "model_ref": f"models/{model[:4]}",
        "same_model": False,
        "outcome": outcome,
        "fresh_start": False,
        "at": stamp(when),
        "author": "ada",
        "documents": 40,
        "tokens": 4000,
        "latents": LatentCounts(kept=6, weakened=1, changed=2, lost=1),
        "reasons": (f"it says {outcome}",),
        "report": "r" * 64,
    }
    return AuditRecord(**values | other)


def seen(model: str, when: datetime.datetime) -> ModelSeen:
    ref = f"models/{model[:4]}"
    return ModelSeen(name=NAME, ref=ref, digest=model, source=f"folder:{ref}", at=stamp(when))


def wanted(operation: str = "op", holder: str = "ada", model: str = "m" * 64) -> Wanted:
    return Wanted(NAME, operation, model, f"models/{model[:4]}", holder)


def running(operation: str = "op", when: datetime.datetime = START, model: str = "m" * 64) -> Retraining:
    taking = take(None, wanted(operation, model=model), POLICY, when)
    assert isinstance(taking, Taken)
    return taking.run


@dataclass(frozen=True)
class World:
    """The records, and the time."""

    facts: Facts
    now: datetime.datetime

    @classmethod
    def after_first_promotion(cls) -> "World":
        first = Change(_digest("bundle", 1), START, "promote", 1)
        return cls(Facts(NAME, (first,), built_on={first.digest: _digest("model", 0)}), START)

    def later(self, by: datetime.timedelta = HOUR, **changes: Any) -> "World":
        return World(replace(self.facts, **changes), self.now + by)

    @property
    def then(self) -> datetime.datetime:
        """When the next thing happens."""
        return self.now + HOUR

    @property
    def model(self) -> str:
        """The one in use."""
        newest = self.facts.last_model
        return newest.digest if newest else self.facts.built_on[self.facts.changes[0].digest]


def an_audit(outcome: AuditOutcome) -> Callable[[World], World | None]:
    def happens(world: World) -> World:
        record = audit_of(world.facts.champion.digest, world.model, outcome, world.then)
        return world.later(audits=(*world.facts.audits, record))

    return happens


def a_new_model(world: World) -> World:
    model = seen(_digest("model", len(world.facts.models) + 1), world.then)
    return world.later(models=(*world.facts.models, model))


def a_retrain_begins(world: World) -> World | None:
    run = world.facts.retraining
    if run is not None and run.outcome == "none":
        return None
    return world.later(retraining=running(stamp(world.then), world.then, world.model))


def a_retrain_ends(world: World) -> World | None:
    run = world.facts.retraining
    if run is None or run.outcome != "none":
        return None
    update = {"outcome": "done", "finished": stamp(world.then), "candidate": _digest("bundle", stamp(world.then))}
    return world.later(retraining=run.model_copy(update=update))


def a_retrain_fails(world: World) -> World | None:
    run = world.facts.retraining
    if run is None or run.outcome != "none":
        return None
    update = {"outcome": "failed", "finished": stamp(world.then), "note": "no room left"}
    return world.later(retraining=run.model_copy(update=update))


def the_judge_refuses(world: World) -> World | None:
    run = world.facts.retraining
    if run is None or not waits(run, world.facts):
        return None
    update = {"verdict": "v" * 64, "verdict_outcome": "fail", "judged": stamp(world.then)}
    return world.later(retraining=run.model_copy(update=update))


def a_promotion(world: World) -> World:
    """Of the candidate that waits, or of a bundle that somebody built by hand."""
    run, champion = world.facts.retraining, world.facts.champion
    waiting = run is not None and waits(run, world.facts)
    digest = run.candidate if run and waiting and run.candidate else _digest("bundle", stamp(world.then))
    change = Change(digest, world.then, "promote", champion.sequence + 1, champion.digest)
    model = run.model if run and waiting else world.model
    return world.later(changes=(*world.facts.changes, change), built_on={**world.facts.built_on, digest: model})


def a_rollback(world: World) -> World | None:
    champion = world.facts.champion
    if champion.previous is None or champion.previous in world.facts.pinned:
        return None
    earlier = next(c for c in reversed(world.facts.changes[:-1]) if c.digest == champion.previous)
    change = Change(champion.previous, world.then, "rollback", champion.sequence + 1, champion.digest)
    assert earlier.digest == change.digest
    return world.later(
        changes=(*world.facts.changes, change), pinned={**world.facts.pinned, champion.digest: world.then}
    )


EVENTS: Mapping[str, Callable[[World], World | None]] = {
    "audit ok": an_audit("ok"),
    "audit drift": an_audit("drift"),
    "new model": a_new_model,
    "a month": lambda world: world.later(MONTH),
    "retrain begins": a_retrain_begins,
    "retrain ends": a_retrain_ends,
    "retrain fails": a_retrain_fails,
    "judge refuses": the_judge_refuses,
    "promotion": a_promotion,
    "rollback": a_rollback,
}
"""What can happen; None where it cannot happen there."""


def _digest(kind: str, which: object) -> str:
    return digest_json([kind, which])
