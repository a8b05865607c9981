"""The walk that promotion and rollback share: intent, verify, pointer, pin, projection, closing.

Killed anywhere, readers see the old champion or the new one, whole, and the
next caller finishes or voids what was left. Why each step stands where it
does: docs/formats/journal.md.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from saeops.errors import IntegrityError, LostRace
from saeops.ports import ObjectStore, RegistryProjection
from saeops.promotion import keys
from saeops.promotion.journal import Entry, Outcome, Step
from saeops.promotion.plan import Plan
from saeops.promotion.projection import Tags
from saeops.promotion.protocol import Author, closing, fenced, next_step
from saeops.promotion.state import SHORT, State, moved, pin_owed
from saeops.stages.projecting import follow
from saeops.stages.records import append, change_pins, close, put_pointer, read_pointer, read_state
from saeops.stages.removals import Mark, being_removed, give_way, read_mark
from saeops.stages.transfer import verify_stored

PATIENCE_S = 3.0
"""How long an intent that somebody else left open may stay so before it is voided."""
PAUSE_S, LONGEST_PAUSE_S = 0.05, 0.4


class Untold:
    """A readable copy that is left alone: `saeops reconcile` tells it later."""

    def shown(self, name: str) -> None:  # noqa: ARG002
        return None

    def register(self, name: str, digest: str, bundle: Path, tags: Tags) -> None:
        pass

    def tag(self, name: str, digest: str | None, tags: Tags) -> None:
        pass

    def point(self, name: str, alias: str, digest: str | None) -> None:
        pass

    def aliases(self, name: str) -> dict[str, str]:  # noqa: ARG002
        return {}


@dataclass(frozen=True)
class Registry:
    """One object store with its readable copy, and how patient to be with others."""

    store: ObjectStore
    projection: RegistryProjection
    patience_s: float = PATIENCE_S
    pause: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Moved:
    """What an operation did."""

    plan: Plan
    entry: Entry | None
    """The journal entry; None where nothing changed (then `plan.unchanged` says why, or it was a dry run)."""
    projection_problem: str = ""
    """Why the readable copy could not follow; `saeops reconcile` repairs it."""


def settle(registry: Registry, name: str, author: Author) -> State:
    """The state after finishing or voiding whatever intent was left open.

    Raises:
        JournalBroken, FormatUnknown, LostRace: as `read_state`.
    """
    awaited: Step | None = None
    while (state := read_state(registry.store, name)).journal.open is not None:
        step = state.journal.open
        match next_step(state):
            case "finish":
                _finish(registry, step, author, None, note="finished later: the pointer had been moved")
            case "void":
                _close(registry.store, step, "void", author, note="found open, and the pointer had not been moved")
            case "fence" if step != awaited:
                _await_closing(registry, step)
                awaited = step
            case "fence":
                put_pointer(registry.store, fenced(state), etag=state.etag)
    return state


def _await_closing(registry: Registry, step: Step) -> None:
    """Leave an intent's owner the time to close it: it may be alive and reading a large bundle."""
    # Small reads, and fewer and fewer: many who wait must not slow down the one they wait for.
    key = keys.closing_key(step.entry.name, step.entry.sequence)
    waited, pause_s = 0.0, PAUSE_S
    while waited < registry.patience_s and registry.store.get(key) is None:
        registry.pause(pause_s)
        waited += pause_s
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def move(
    registry: Registry,
    state: State,
    plan: Plan,
    entry: Entry,
    author: Author,
    *,
    seen: Mark | None = None,
    bundle: Path | None = None,
) -> Moved:
    """Carry out a plan on the settled state it was made for.

    Args:
        seen: the mark of a removal on a promotion's target, from before it was uploaded.
        bundle: the target's folder where one is at hand, to register with the projection.

    Raises:
        LostRace: somebody else was first; the champion is theirs.
        IntegrityError: the target in the store is not whole; the champion is not touched.
    """
    store = registry.store
    step = append(store, entry)
    if step is None:
        raise _lost(store, entry)
    # What a rollback goes to is named by the journal, so no removal may touch it.
    if entry.action == "promote" and give_way(store, entry.to_digest, seen, author):
        _close(store, step, "void", author, note="its target is being removed from the store")
        raise being_removed(read_mark(store, entry.to_digest), entry.name)
    try:
        verify_stored(store, entry.to_digest)
    except IntegrityError as error:
        _close(store, step, "void", author, note=error.message)
        raise
    if not put_pointer(store, moved(step), etag=state.etag) and not _landed(store, step):
        _close(store, step, "void", author, note="the pointer was taken from it")
        raise _lost(store, entry)
    problem = _finish(registry, step, author, bundle, note="")
    return Moved(plan, entry, projection_problem=problem)


def _finish(registry: Registry, step: Step, author: Author, bundle: Path | None, *, note: str) -> str:
    """Everything that follows a moved pointer; each part may have been done before."""
    name = step.entry.name
    change_pins(registry.store, name, lambda pins: pins.and_also(pin_owed(step)))
    problem = follow(registry.store, registry.projection, name, step.entry.to_digest, bundle)
    _close(registry.store, step, "done", author, note=note)
    return problem


def _close(store: ObjectStore, step: Step, outcome: Outcome, author: Author, *, note: str) -> None:
    close(store, step.entry.name, closing(step, outcome, author, note))


def _landed(store: ObjectStore, step: Step) -> bool:
    """Whether our pointer was written although the store refused it: a refusal can be a retry's echo."""
    pointer = read_pointer(store, step.entry.name)
    if pointer is not None and pointer.operation == step.entry.operation:
        return True
    # Others may have finished our operation and gone on.
    return any(done.entry_sha256 == step.entry_sha256 for done in read_state(store, step.entry.name).settled)


def _lost(store: ObjectStore, entry: Entry) -> LostRace:
    found = store.get(keys.entry_key(entry.name, entry.sequence))
    pointer = read_pointer(store, entry.name)
    champion = pointer.digest[:SHORT] if pointer and pointer.digest else "none yet"
    ours = found is not None and found.data == entry.to_bytes()
    what = "voided this operation while it ran" if ours else "was first"
    return LostRace(
        f"{entry.name}: somebody else {what}; champion: {champion}",
        hint=f"see `saeops history {entry.name}`, then run the same command again if it is still wanted",
    )
