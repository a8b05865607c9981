"""Retention: which bundles must stay, and the mark that a removal leaves. `stages/gc.py` acts on it.

A removal and a promotion of the same bundle may meet. Each writes first and
looks second: the removal writes its mark and then reads the journals, the
promotion writes its intent and then reads the mark. So at least one of them
sees the other, and gives way. Format: docs/formats/journal.md.
"""

from dataclasses import dataclass
from typing import Literal

from saeops.promotion.journal import Record, Step
from saeops.promotion.protocol import Author
from saeops.promotion.state import State

KEEP = 5
"""Champions of a name that stay, the newest first, unless told otherwise."""

Phase = Literal["marked", "removed", "withdrawn"]


class Removal(Record):
    """removals/<digest>.json: who removes a bundle, and how far that is."""

    digest: str
    operation: str
    """Who may delete: another operation takes the mark over by compare-and-swap."""
    phase: Phase
    """`marked`: files may be gone; `removed`: all were; `withdrawn`: it stays, or was uploaded again."""
    who: str
    at: str


@dataclass(frozen=True)
class Victim:
    """A stored bundle that nothing keeps."""

    digest: str
    name: str | None
    """Whose journal names it; None: nobody's."""
    why: str
    files: int
    bytes: int


def removal(digest: str, author: Author, phase: Phase) -> Removal:
    return Removal(digest=digest, operation=author.operation, phase=phase, who=author.who, at=author.at)


def kept(state: State, keep: int) -> dict[str, str]:
    """Digest → why it stays: the strongest reason.

    Args:
        keep: how many of the newest champions stay whatever else holds.
    """
    newest = dict.fromkeys(step.entry.to_digest for step in reversed(state.settled))
    reasons = dict.fromkeys(list(newest)[:keep], f"one of the {keep} newest champions")
    reasons |= {digest: f"pinned: {pin.reason}" for digest, pin in state.pinned.items()}
    if state.journal.open is not None:
        entry = state.journal.open.entry
        reasons[entry.to_digest] = f"entry {entry.sequence} of {entry.who} is open"
    if state.previous is not None:
        reasons[state.previous] = "previous"
    if state.champion is not None:
        reasons[state.champion] = "champion"
    return reasons


def left_because(step: Step) -> str:
    """Why nothing keeps the bundle of a name's latest entry for it."""
    entry = step.entry
    if step.done:
        return f"champion by entry {entry.sequence}, {entry.at[:10]}"
    return f"entry {entry.sequence} was voided, {entry.at[:10]}"
