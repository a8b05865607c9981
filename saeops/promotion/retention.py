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
    """The dictionary that it says it belongs to; None where it does not say."""
    why: str
    files: int
    bytes: int


def removal(digest: str, author: Author, phase: Phase) -> Removal:
    return Removal(digest=digest, operation=author.operation, phase=phase, who=author.who, at=author.at)


def kept(state: State) -> dict[str, str]:
    """Digest → why it stays, the strongest reason: whatever the journal names, and whatever is pinned."""
    reasons = {step.entry.to_digest: _journalled(step) for step in state.journal.steps}
    reasons |= {digest: f"pinned: {pin.reason}" for digest, pin in state.pinned.items()}
    if state.previous is not None:
        reasons[state.previous] = "previous"
    if state.champion is not None:
        reasons[state.champion] = "champion"
    return reasons


def _journalled(step: Step) -> str:
    entry = step.entry
    outcome = step.closing.outcome if step.closing else "open"
    return f"journal entry {entry.sequence}, {outcome}, {entry.at[:10]}"
