"""The promotion journal: one immutable entry an operation, chained by hash.

An operation writes its entry before it does anything (intent, and lock) and
its closing when it is over. The next entry names the link of the record before
it, which covers both, so no entry and no closing can be edited, dropped or
moved unnoticed. Format: docs/formats/journal.md.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar

from pydantic import ValidationError

from saeops.config import Frozen
from saeops.digests import canonical_json, digest_bytes, digest_json
from saeops.errors import FormatUnknown, JournalBroken

FORMAT = 1
GENESIS = "0" * 64
"""What the first entry names as the link before it."""

Action = Literal["promote", "rollback"]
Outcome = Literal["done", "void"]


class Record(Frozen):
    """One JSON object of the registry, with its format's version; its bytes carry the rest's digest as `seal`."""

    format: Literal[1] = 1

    def to_bytes(self) -> bytes:
        """Equal values give equal bytes, and `parse_record` refuses any others."""
        values = self.model_dump(mode="json")
        return canonical_json({**values, "seal": digest_json(values)}) + b"\n"


class Entry(Record):
    """What somebody set out to do."""

    name: str
    sequence: int
    """1, 2, 3, … without gaps."""
    operation: str
    """Names this attempt; the pointer carries it once it is moved."""
    action: Action
    at: str
    """When, ISO-8601 in UTC, by the clock of who did it; order is the sequence's matter."""
    who: str
    reason: str
    from_digest: str | None
    """Champion before; None at the first promotion."""
    to_digest: str
    """Champion meant to be."""
    verdict: str | None
    """Digest of the verdict; None for a rollback."""
    forced: bool
    """The judge did not pass it, and somebody promoted it all the same."""
    git_commit: str | None
    """Revision of the checkout it was promoted from."""
    previous: str
    """Link of the record before; `GENESIS` for the first."""


class Closing(Record):
    """What became of it."""

    sequence: int
    operation: str
    outcome: Outcome
    """`done`: the pointer was moved; `void`: it was not, and never will be by this operation."""
    entry: str
    """sha256 of the entry's bytes."""
    at: str
    who: str
    note: str
    """Why it was voided, or that somebody else finished it."""


@dataclass(frozen=True)
class Step:
    """An entry with its closing, as read from the store."""

    entry: Entry
    entry_sha256: str
    closing: Closing | None
    closing_sha256: str | None

    @property
    def link(self) -> str:
        """What the next entry must name as `previous`."""
        return digest_json([self.entry_sha256, self.closing_sha256])

    @property
    def done(self) -> bool:
        return self.closing is not None and self.closing.outcome == "done"


@dataclass(frozen=True)
class Journal:
    """The verified steps of one name, in order."""

    name: str
    steps: tuple[Step, ...]

    @cached_property
    def done(self) -> tuple[Step, ...]:
        """The steps that moved the pointer."""
        return tuple(step for step in self.steps if step.done)

    @property
    def open(self) -> Step | None:
        """The intent that nobody closed yet; only the last can be one."""
        return self.steps[-1] if self.steps and self.steps[-1].closing is None else None

    @property
    def next_sequence(self) -> int:
        return len(self.steps) + 1

    @property
    def next_previous(self) -> str:
        return self.steps[-1].link if self.steps else GENESIS


def parse_step(name: str, sequence: int, entry: bytes, closing: bytes | None) -> Step:
    """Read one entry and its closing.

    Raises:
        JournalBroken: not an entry, or a closing of another entry.
        FormatUnknown: written by a newer saeops.
    """
    where = f"{name}: journal entry {sequence}"
    parsed = parse_record(Entry, entry, where)
    sha256 = digest_bytes(entry)
    if (parsed.name, parsed.sequence) != (name, sequence):
        raise broken(where, f"is entry {parsed.sequence} of {parsed.name}")
    if closing is None:
        return Step(parsed, sha256, None, None)
    closed = parse_record(Closing, closing, f"{where}'s closing")
    if (closed.entry, closed.operation, closed.sequence) != (sha256, parsed.operation, sequence):
        raise broken(where, "was changed after it was written, or its closing was")
    return Step(parsed, sha256, closed, digest_bytes(closing))


def chain(name: str, steps: Sequence[Step]) -> Journal:
    """The journal, if every entry follows the one before it.

    Raises:
        JournalBroken: names the first entry that does not.
    """
    previous = GENESIS
    for sequence, step in enumerate(steps, start=1):
        where = f"{name}: journal entry {sequence}"
        if step.entry.previous != previous:
            raise broken(where, "does not follow the one before it: one of the two was changed")
        if step.closing is None and sequence < len(steps):
            raise broken(where, "lacks its closing although a later entry follows")
        previous = step.link
    return Journal(name, tuple(steps))


R = TypeVar("R", bound=Record)


def parse_record(kind: type[R], data: bytes, where: str) -> R:
    """Read one JSON object of the registry: exactly the bytes that `to_bytes` writes, and no others.

    Raises:
        JournalBroken: any byte of it is not as it was written.
        FormatUnknown: written by another version of saeops.
    """
    try:
        values = json.loads(data)
        seal = values.pop("seal", None)
        whole = digest_json(values) == seal
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise broken(where, "is not readable") from error
    if values.get("format") != FORMAT:
        raise FormatUnknown(
            f"{where} is in format {values.get('format')}, this saeops reads format {FORMAT}",
            hint="use the saeops release that wrote it, or a newer one",
        )
    if not whole:
        raise broken(where, "was changed after it was written: it does not match its seal")
    try:
        record = kind.model_validate(values)
    except ValidationError as error:
        raise broken(where, f"is not a valid {kind.__name__.lower()}: {error.errors()[0]['msg']}") from error
    if record.to_bytes() != data:
        raise broken(where, "was changed after it was written: it says the same in other bytes")
    return record


def broken(where: str, what: str) -> JournalBroken:
    """The error for a record that does not hold."""
    return JournalBroken(
        f"{where} {what}",
        hint="readers keep the champion; restore names/ in the store from a backup (docs/runbooks/rollback.md)",
    )
