"""The lease that lets one retrain run at a time. Decided here; `stages/retraining.py` compares and swaps.

Taking it, by what the record says:
    nothing, or a retrain that ended                    → taken
    this very operation, done                           → ended: there is nothing left to do
    a running one of this operation and holder          → taken at once: its process died and came back
    a running one whose heartbeat is too old            → taken
    any other running one                               → busy: wait
A retrain that is gone on with keeps its start and its step. Each taking counts `attempt` up; whoever held an
earlier attempt finds that out at its next heartbeat.
"""

import datetime
from dataclasses import dataclass

from saeops.drift.policy.config import RetrainConfig
from saeops.drift.policy.machine import lease_end, silent
from saeops.drift.policy.records import Retraining


@dataclass(frozen=True)
class Wanted:
    """A retrain that somebody wants to run."""

    name: str
    operation: str
    model: str
    model_ref: str
    holder: str


@dataclass(frozen=True)
class Taken:
    """The retrain is the holder's."""

    run: Retraining
    resumed: bool
    """An earlier attempt of the same operation was cut off."""


@dataclass(frozen=True)
class Busy:
    """Somebody else retrains."""

    run: Retraining
    until: datetime.datetime
    """When its lease ends unless it shows a sign of life."""


@dataclass(frozen=True)
class Ended:
    """This operation was done before."""

    run: Retraining


Taking = Taken | Busy | Ended


def take(found: Retraining | None, wanted: Wanted, policy: RetrainConfig, now: datetime.datetime) -> Taking:
    """What becomes of asking for the lease."""
    at = stamp(now)
    if found is None:
        return Taken(_first(wanted, at, attempt=1), resumed=False)
    same = (found.operation, found.model) == (wanted.operation, wanted.model)
    if found.outcome == "done" and same:
        return Ended(found)
    if found.outcome != "none":
        return Taken(_first(wanted, at, attempt=found.attempt + 1), resumed=False)
    returned = same and found.holder == wanted.holder
    if not returned and not silent(found, policy, now):
        return Busy(found, lease_end(found, policy))
    if same:
        update = {"holder": wanted.holder, "attempt": found.attempt + 1, "heartbeat": at, "step_since": at}
        return Taken(found.model_copy(update=update), resumed=True)
    return Taken(_first(wanted, at, attempt=found.attempt + 1), resumed=False)


def still_held(found: Retraining | None, run: Retraining) -> bool:
    """Whether nobody took the lease since `run` was taken, and it was not ended."""
    ours = (run.operation, run.attempt)
    return found is not None and found.outcome == "none" and (found.operation, found.attempt) == ours


def beat(found: Retraining, now: datetime.datetime, step: str | None) -> Retraining:
    """The record after a sign of life, perhaps at another step."""
    at = stamp(now)
    if step is None or step == found.step:
        return found.model_copy(update={"heartbeat": at})
    return found.model_copy(update={"heartbeat": at, "step": step, "step_since": at})


def stamp(now: datetime.datetime) -> str:
    """ISO-8601 in UTC, to the second."""
    return now.astimezone(datetime.UTC).isoformat(timespec="seconds")


def _first(wanted: Wanted, at: str, *, attempt: int) -> Retraining:
    return Retraining(
        name=wanted.name,
        operation=wanted.operation,
        model=wanted.model,
        model_ref=wanted.model_ref,
        holder=wanted.holder,
        attempt=attempt,
        started=at,
        heartbeat=at,
        step_since=at,
    )
