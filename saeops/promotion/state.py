"""What the registry says about one name, read together and checked together."""

import re
from dataclasses import dataclass

from pydantic import Field

from saeops.config import Frozen
from saeops.errors import NameUnknown, VersionUnknown
from saeops.promotion.journal import Journal, Record, Step, broken

SHORT = 12
"""Digits of a digest shown to people."""


class Pointer(Record):
    """names/<name>/champion.json: which bundle is champion, and by which operation."""

    name: str
    digest: str | None
    """None: the first promotion was voided, there is no champion yet."""
    sequence: int | None
    operation: str | None
    entry: str | None
    """sha256 of the journal entry that moved it here."""
    fence: str | None = None
    """The operation voided last: the rewrite changes the etag, so that its late write cannot land."""


class Pin(Frozen):
    """Why a version may not become champion."""

    reason: str
    who: str
    at: str
    sequence: int | None
    """The latest rollback that left it; None where none did, and a person pinned it."""


class Pins(Record):
    """names/<name>/pins.json."""

    pins: dict[str, Pin] = Field(default_factory=dict)
    """By bundle digest."""
    lifted: dict[str, int] = Field(default_factory=dict)
    """Bundle digest → journal sequence at which it was unpinned: pins of earlier rollbacks come too late."""

    def and_also(self, pins: dict[str, Pin]) -> "Pins":
        in_time = {
            digest: self._over(digest, pin)
            for digest, pin in pins.items()
            if pin.sequence is None or pin.sequence > self.lifted.get(digest, 0)
        }
        return self.model_copy(update={"pins": {**self.pins, **in_time}})

    def without(self, digest: str, *, sequence: int) -> "Pins":
        """Unpinned by somebody who knew the journal up to `sequence`: the pin of a later rollback stays."""
        pin = self.pins.get(digest)
        if pin is None or (pin.sequence or 0) > sequence:
            return self
        kept = {key: other for key, other in self.pins.items() if key != digest}
        return Pins(pins=kept, lifted={**self.lifted, digest: sequence})

    def _over(self, digest: str, pin: Pin) -> Pin:
        """The pin where another may stand: it never forgets the latest rollback that left this version."""
        there = self.pins.get(digest)
        if there is None or there.sequence is None:
            return pin
        if pin.sequence is None:
            return pin.model_copy(update={"sequence": there.sequence})
        return pin if pin.sequence >= there.sequence else there


@dataclass(frozen=True)
class State:
    """Journal, pointer and pins of one name at one moment."""

    journal: Journal
    pointer: Pointer | None
    etag: str | None
    """The pointer's; None where there is no pointer."""
    pins: Pins

    @property
    def name(self) -> str:
        return self.journal.name

    @property
    def champion(self) -> str | None:
        return self.pointer.digest if self.pointer else None

    @property
    def settled(self) -> tuple[Step, ...]:
        """Every step that moved the pointer, the open one included if it did."""
        last = self.journal.open
        moved = last is not None and self.pointer is not None and self.pointer.operation == last.entry.operation
        return (*self.journal.done, last) if last and moved else self.journal.done

    @property
    def made_champion(self) -> Step | None:
        """The step that put the champion where it is."""
        return self.settled[-1] if self.settled else None

    @property
    def pinned(self) -> dict[str, Pin]:
        """The pins in force, that of an open rollback included if it moved the pointer."""
        last = self.made_champion
        owed = pin_owed(last) if last and last is self.journal.open else {}
        return {**self.pins.pins, **owed}

    @property
    def previous(self) -> str | None:
        """The champion before this one."""
        return self.made_champion.entry.from_digest if self.made_champion else None

    def promotion_of(self, digest: str) -> Step:
        """The latest promotion of a version: by what right it is, or was, champion."""
        promotions = [s for s in self.settled if s.entry.to_digest == digest and s.entry.action == "promote"]
        assert promotions, "a rollback only goes to what was promoted"
        return promotions[-1]

    def knows(self, version: str) -> bool:
        """Whether a sequence number or (the start of) a digest means something that was champion here."""
        return any(_means(version, step) for step in self.settled)

    def resolve(self, version: str) -> str:
        """The digest that `champion`, `previous`, a sequence number or (the start of) a digest means.

        Raises:
            NameUnknown: nothing was ever promoted under this name.
            VersionUnknown: nothing was promoted under this version; lists what was.
        """
        if self.champion is None:
            raise no_champion(self.name)
        if version == "champion":
            return self.champion
        if version == "previous":
            if self.previous is None:
                raise VersionUnknown(
                    f"{self.name}: there is no version before the first", hint=self.known_versions()
                )
            return self.previous
        matches = {step.entry.to_digest for step in self.settled if _means(version, step)}
        if len(matches) != 1:
            what = "was never promoted" if not matches else "could be several versions"
            raise VersionUnknown(f"{self.name}: {version!r} {what}", hint=self.known_versions())
        return matches.pop()

    def known_versions(self) -> str:
        """One line for people: the versions that were champion."""
        listed = [f"{s.entry.sequence} ({s.entry.to_digest[:SHORT]}, {s.entry.at[:10]})" for s in self.settled]
        return "known versions: " + ", ".join(listed[-10:])


def pin_owed(step: Step) -> dict[str, Pin]:
    """What a rollback pins: the version it left behind, until a person unpins it."""
    entry = step.entry
    if entry.action != "rollback" or entry.from_digest is None:
        return {}
    return {entry.from_digest: Pin(reason=entry.reason, who=entry.who, at=entry.at, sequence=entry.sequence)}


def check_state(state: State) -> State:
    """The state, if pointer and journal tell the same story.

    Raises:
        JournalBroken: one of them was edited.
    """
    pointer, last = state.pointer, state.made_champion
    blank = Pointer(name=state.name, digest=None, sequence=None, operation=None, entry=None)
    found = (pointer or blank).model_copy(update={"fence": None})
    told = blank if last is None else moved(last)
    if found != told:
        raise broken(
            f"{state.name}: champion.json",
            f"(entry {found.sequence}) and the journal (last moved by entry {told.sequence}) disagree: "
            "an entry, a closing or the pointer was changed by hand",
        )
    fence = pointer.fence if pointer else None
    unmoved = {step.entry.operation for step in state.journal.steps if not step.done}
    if fence is not None and fence not in unmoved:
        raise broken(
            f"{state.name}: the last journal entry",
            f"is missing: champion.json fences operation {fence}, and no void entry carries it",
        )
    return state


def moved(step: Step) -> Pointer:
    """The pointer once the step's operation has moved it."""
    entry = step.entry
    return Pointer(
        name=entry.name,
        digest=entry.to_digest,
        sequence=entry.sequence,
        operation=entry.operation,
        entry=step.entry_sha256,
    )


def no_champion(name: str) -> NameUnknown:
    """The error for a name under which nothing was ever promoted."""
    return NameUnknown(
        f"{name} has no champion", hint="`saeops status` lists the names that have one; promote a bundle first"
    )


def _means(version: str, step: Step) -> bool:
    if re.fullmatch(r"\d{1,8}", version):
        return step.entry.sequence == int(version)
    return bool(re.fullmatch(r"[0-9a-f]{8,64}", version)) and step.entry.to_digest.startswith(version)
