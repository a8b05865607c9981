"""Rules of the review ledger: an append-only chain of decisions, each entry bound to the one before.

Format: docs/formats/ledger.md. What holds the entries is an adapter's matter.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from saeops.digests import digest_json
from saeops.errors import LedgerTampered

Verdict = Literal["accept", "edit", "reject"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

GENESIS = "0" * 64
"""What the first entry names as the sha256 before it."""


@dataclass(frozen=True)
class Decision:
    """What one person said about one label of one bundle."""

    bundle: str
    """Digest of the bundle that was looked at."""
    latent: int
    label_version: str
    """Version of the label that was looked at."""
    verdict: Verdict
    text: str | None
    """The better text of an edit; None otherwise."""
    reason: str
    reviewer: str
    at: str
    """When, ISO-8601 in UTC."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Decision":
        return cls(**data)


@dataclass(frozen=True)
class LedgerEntry:
    """A decision in its place in the chain."""

    seq: int
    """1, 2, 3, … without gaps."""
    decision: Decision
    previous: str
    """sha256 of the entry before; `GENESIS` for the first."""
    sha256: str
    """`entry_digest(seq, previous, decision)`."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "LedgerEntry":
        return cls(**{**data, "decision": Decision.from_json(data["decision"])})


def entry_digest(seq: int, previous: str, decision: Decision) -> str:
    """sha256 over the canonical JSON of sequence number, previous sha256 and decision."""
    return digest_json({"seq": seq, "previous": previous, "decision": decision.to_json()})


def next_entry(entries: Sequence[LedgerEntry], decision: Decision) -> LedgerEntry:
    """The entry that a decision makes at the end of a verified chain."""
    seq = len(entries) + 1
    previous = entries[-1].sha256 if entries else GENESIS
    return LedgerEntry(seq, decision, previous, entry_digest(seq, previous, decision))


def verify_chain(entries: Sequence[LedgerEntry], *, where: str) -> None:
    """Check numbering, links and digests.

    A chain says nothing about entries cut off at its end: whoever relies on a
    length must remember the last sha256 elsewhere.

    Raises:
        LedgerTampered: names the first sequence number that does not hold.
    """
    previous = GENESIS
    for expected, entry in enumerate(entries, start=1):
        fault = _fault(entry, expected, previous)
        if fault:
            raise tampered(expected, fault, where=where)
        previous = entry.sha256


def _fault(entry: LedgerEntry, seq: int, previous: str) -> str:
    if entry.seq != seq:
        return f"missing or moved: entry {entry.seq} stands in its place"
    if entry.previous != previous:
        return "does not follow the entry before it"
    if entry.sha256 != entry_digest(entry.seq, entry.previous, entry.decision):
        return "its content was changed after it was written"
    return ""


def tampered(seq: int, fault: str, *, where: str) -> LedgerTampered:
    """The error for a chain that breaks at `seq`."""
    return LedgerTampered(
        f"review ledger {where}: entry {seq}: {fault}",
        hint="put the ledger back from a backup; decisions before this entry hold, later ones prove nothing",
    )
