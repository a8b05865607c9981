"""The protocol's decisions: what comes next, given what the store says. `stages/walk.py` acts on them.

An operation is: intent (journal entry, if absent) → verify the target's bytes
in the store → move the pointer (if match, carrying the operation's id) → pin
what a rollback left → projection → closing. At most one intent is open, since
an entry is only written after the one before it was closed.
"""

import datetime
from dataclasses import dataclass
from typing import Literal

from saeops.promotion.journal import Action, Closing, Entry, Outcome, Step
from saeops.promotion.state import Pointer, State


@dataclass(frozen=True)
class Author:
    """Who acts, when, and under which operation id."""

    who: str
    now: datetime.datetime
    operation: str

    @property
    def at(self) -> str:
        """ISO-8601 in UTC, to the second."""
        return self.now.astimezone(datetime.UTC).isoformat(timespec="seconds")


def intent(
    state: State,
    author: Author,
    *,
    action: Action,
    to_digest: str,
    reason: str,
    verdict: str | None = None,
    forced: bool = False,
    git_commit: str | None = None,
) -> Entry:
    """The entry that announces an operation, following a settled journal."""
    return Entry(
        name=state.name,
        sequence=state.journal.next_sequence,
        operation=author.operation,
        action=action,
        at=author.at,
        who=author.who,
        reason=reason,
        from_digest=state.champion,
        to_digest=to_digest,
        verdict=verdict,
        forced=forced,
        git_commit=git_commit,
        previous=state.journal.next_previous,
    )


def closing(step: Step, outcome: Outcome, author: Author, note: str) -> Closing:
    return Closing(
        sequence=step.entry.sequence,
        operation=step.entry.operation,
        outcome=outcome,
        entry=step.entry_sha256,
        at=author.at,
        who=author.who,
        note=note,
    )


Next = Literal["finish", "void", "fence"]


def next_step(state: State) -> Next:
    """What whoever finds an open intent does with it.

    `finish` when the pointer was moved; `fence` when it was not: rewriting the
    pointer takes its etag from the operation, which may only be slow; `void`
    when it is fenced.
    """
    step, pointer = state.journal.open, state.pointer
    assert step is not None
    if pointer is not None and pointer.operation == step.entry.operation:
        return "finish"
    if pointer is not None and pointer.fence == step.entry.operation:
        return "void"
    return "fence"


def fenced(state: State) -> Pointer:
    """The pointer that keeps an open operation's late write from landing."""
    step = state.journal.open
    assert step is not None
    blank = Pointer(name=state.name, digest=None, sequence=None, operation=None, entry=None)
    return (state.pointer or blank).model_copy(update={"fence": step.entry.operation})
