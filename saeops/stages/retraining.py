"""The retraining lease: one retrain of a name at a time, held by a heartbeat, taken over when that stops."""

import contextlib
import datetime
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from saeops.drift.policy.config import RetrainConfig
from saeops.drift.policy.lease import Busy, Ended, Taken, Taking, Wanted, beat, stamp, still_held, take
from saeops.drift.policy.records import Retraining
from saeops.errors import LostRace, SaeopsError
from saeops.ports import ObjectStore
from saeops.promotion.state import SHORT
from saeops.promotion.verdict import Verdict
from saeops.stages.drift_records import put_retraining, read_retraining
from saeops.stages.records import TRIES

Clock = Callable[[], datetime.datetime]


def acquire(store: ObjectStore, wanted: Wanted, policy: RetrainConfig, now: datetime.datetime) -> Taking:
    """Ask for the lease; `Busy` tells who has it and until when, `Ended` that this operation was done before.

    Raises:
        LostRace: the record keeps changing.
        JournalBroken, FormatUnknown: the record cannot be trusted.
    """
    for _ in range(TRIES):
        found, etag = read_retraining(store, wanted.name)
        taking = take(found, wanted, policy, now)
        if not isinstance(taking, Taken):
            return taking
        if put_retraining(store, taking.run, etag=etag):
            return taking
    raise _moves(wanted.name)


def heartbeat(store: ObjectStore, run: Retraining, now: datetime.datetime, step: str | None = None) -> Retraining:
    """Show a sign of life; safe to call from several threads of the holder.

    Args:
        step: what it is at from now on; None: still the same.

    Raises:
        LostRace: the lease was taken over, or the retrain was ended.
    """
    return _change(store, run, lambda found: beat(found, now, step))


def finish(
    store: ObjectStore, run: Retraining, now: datetime.datetime, *, candidate: str, verdict: Verdict | None = None
) -> Retraining:
    """End a retrain that made a candidate.

    Args:
        candidate: digest of the bundle.
        verdict: the judge's, where it was asked already.

    Raises:
        LostRace: the lease was taken over.
    """
    at = stamp(now)
    update = {"outcome": "done", "finished": at, "heartbeat": at, "candidate": candidate, **_judged(verdict, at)}
    return _change(store, run, lambda found: found.model_copy(update=update))


def fail(store: ObjectStore, run: Retraining, now: datetime.datetime, *, note: str) -> Retraining:
    """End a retrain that cannot be made; one that was only cut off is left to be gone on with.

    Raises:
        LostRace: the lease was taken over.
    """
    at = stamp(now)
    update = {"outcome": "failed", "finished": at, "heartbeat": at, "note": note}
    return _change(store, run, lambda found: found.model_copy(update=update))


def note_verdict(
    store: ObjectStore, name: str, candidate: str, verdict: Verdict, now: datetime.datetime
) -> Retraining | None:
    """Keep what the judge said of a finished retrain's candidate; None where the record is of another one.

    Args:
        candidate: digest of the bundle as it was built; a verdict is on it with people's decisions sealed in.
    """
    for _ in range(TRIES):
        found, etag = read_retraining(store, name)
        if found is None or found.outcome != "done" or found.candidate != candidate:
            return None
        changed = found.model_copy(update=_judged(verdict, stamp(now)))
        if put_retraining(store, changed, etag=etag):
            return changed
    raise _moves(name)


@contextlib.contextmanager
def kept_alive(store: ObjectStore, run: Retraining, *, every_s: float, clock: Clock) -> Iterator["Beating"]:
    """Beat in a thread while the block works. The block's `step()` raises once the lease is lost."""
    beating = Beating(store, run, clock)
    thread = threading.Thread(target=beating.until_stopped, args=(every_s,), daemon=True)
    thread.start()
    try:
        yield beating
    finally:
        beating.stopped.set()
        thread.join()


@dataclass
class Beating:
    """The heart of one retrain."""

    store: ObjectStore
    run: Retraining
    clock: Clock

    def __post_init__(self) -> None:
        self.stopped = threading.Event()
        self.lost: LostRace | None = None

    def step(self, name: str) -> None:
        """Go on to the next step.

        Raises:
            LostRace: the lease was lost; whatever was being made is the new holder's to finish.
        """
        if self.lost is not None:
            raise self.lost
        self.run = heartbeat(self.store, self.run, self.clock(), name)

    def until_stopped(self, every_s: float) -> None:
        while not self.stopped.wait(every_s):
            try:
                heartbeat(self.store, self.run, self.clock())
            except LostRace as error:
                self.lost = error
                return
            except SaeopsError:
                # A store that is away for a while is no reason to stop: the lease outlasts several beats.
                continue


def describe_wait(taking: Busy | Ended) -> str:
    """One sentence on why a retrain does not start."""
    run = taking.run
    match taking:
        case Busy():
            step = f", at {run.step}" if run.step else ""
            return (
                f"{run.name}: {run.holder} retrains for model {run.model[:SHORT]} since {run.started}{step}; "
                f"waiting: its lease ends {stamp(taking.until)} unless it shows a sign of life"
            )
        case Ended():
            made = f": candidate {run.candidate[:SHORT]}" if run.candidate else ""
            return f"{run.name}: this retrain was done {run.finished}{made}"


def _change(store: ObjectStore, run: Retraining, change: Callable[[Retraining], Retraining]) -> Retraining:
    done: bytes | None = None
    for _ in range(TRIES):
        found, etag = read_retraining(store, run.name)
        if found is not None and found.to_bytes() == done:
            # The store refused what it had written: a retry's echo.
            return found
        if found is None or not still_held(found, run):
            raise _lost(run, found)
        changed = change(found)
        if put_retraining(store, changed, etag=etag):
            return changed
        done = changed.to_bytes()
    raise _moves(run.name)


def _judged(verdict: Verdict | None, at: str) -> dict[str, str]:
    if verdict is None:
        return {}
    return {"verdict": verdict.digest, "verdict_outcome": verdict.outcome, "judged": at}


def _lost(run: Retraining, found: Retraining | None) -> LostRace:
    now = "its record is gone"
    if found is not None:
        now = f"{found.holder} has it" if found.outcome == "none" else f"it ended: {found.outcome}"
    return LostRace(
        f"{run.name}: {run.holder} lost the retrain {run.operation[:SHORT]}: {now}",
        hint=f"stop this run, the other one goes on with its work; `saeops status {run.name}` shows it",
    )


def _moves(name: str) -> LostRace:
    return LostRace(f"the retraining record of {name} keeps changing", hint="run the same command again")
