"""What the registry says, and what people say to it: status, history, verify, pin, unpin."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from saeops.digests import digest_bytes
from saeops.errors import LostRace, UsageError
from saeops.ports import ObjectStore
from saeops.promotion import keys
from saeops.promotion.journal import Step, broken
from saeops.promotion.plan import settling
from saeops.promotion.protocol import Author
from saeops.promotion.state import SHORT, Pin, State, no_champion, pin_owed
from saeops.stages.records import change_pins, read_state
from saeops.stages.removals import being_removed, read_mark
from saeops.stages.transfer import find_digest, verify_stored
from saeops.stages.walk import Registry, settle


@dataclass(frozen=True)
class Status:
    """Who is champion, since when, by what right."""

    name: str
    champion: str
    """Digest."""
    sequence: int
    """Journal entry that made it champion."""
    action: Literal["promote", "rollback"]
    since: str
    who: str
    reason: str
    forced: bool
    """It was promoted against its verdict; stays so for as long as it is champion."""
    forced_reason: str
    verdict: str | None
    """Digest of the verdict it was promoted on."""
    git_commit: str | None
    recoverable: bool
    """A recipe was kept: `saeops checkout` restores it."""
    previous: str | None
    pinned: dict[str, str]
    """Digest → why it may not become champion."""
    open_intent: tuple[str, ...]
    """What the next promotion or rollback will finish or void first."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "open_intent": list(self.open_intent)}


@dataclass(frozen=True)
class HistoryRow:
    """One journal entry, for people."""

    sequence: int
    at: str
    who: str
    action: Literal["promote", "rollback"]
    outcome: Literal["done", "void", "open"]
    from_digest: str | None
    to_digest: str
    reason: str
    forced: bool
    verdict: str | None
    git_commit: str | None
    recoverable: bool
    """A recipe was kept of `to_digest`."""
    note: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Verified:
    """A bundle whose every byte was read."""

    digest: str
    files: int
    bytes: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def names(store: ObjectStore) -> list[str]:
    """Every name that has, or had, a champion."""
    return keys.names_among(store.list("names/"))


def status(store: ObjectStore, name: str) -> Status:
    """The champion of a name.

    Raises:
        NameUnknown: there is none.
        JournalBroken: the registry cannot be trusted.
    """
    state = read_state(store, name)
    step = state.made_champion
    if step is None:
        raise no_champion(name)
    promotion = state.promotion_of(step.entry.to_digest)
    return Status(
        name=name,
        champion=step.entry.to_digest,
        sequence=step.entry.sequence,
        action=step.entry.action,
        since=step.entry.at,
        who=step.entry.who,
        reason=step.entry.reason,
        forced=promotion.entry.forced,
        forced_reason=promotion.entry.reason if promotion.entry.forced else "",
        verdict=promotion.entry.verdict,
        git_commit=promotion.entry.git_commit,
        recoverable=store.get(keys.recipe_key(step.entry.to_digest)) is not None,
        previous=state.previous,
        pinned={digest: pin.reason for digest, pin in sorted(state.pinned.items())},
        open_intent=settling(state),
    )


def history(store: ObjectStore, name: str, *, verify: bool = False) -> list[HistoryRow]:
    """The journal in order. The chain is always checked; `verify` checks verdicts and pins as well.

    Raises:
        NameUnknown: the name has no journal.
        JournalBroken: an entry, closing, verdict or pin is missing, edited or out of its place.
    """
    state = read_state(store, name)
    if not state.journal.steps:
        raise no_champion(name)
    if verify:
        for step in state.journal.steps:
            _verify_verdict(store, step)
        _verify_pins(state)
    kept = keys.with_recipe(store.list("recipes/"))
    return [_row(step, recoverable=step.entry.to_digest in kept) for step in state.journal.steps]


def verify(store: ObjectStore, reference: str) -> Verified:
    """Read every byte of a stored bundle: NAME (its champion), NAME@VERSION, or a digest.

    Raises:
        NameUnknown, VersionUnknown: there is no such bundle.
        FolderDamaged: a file is missing, extra, or changed; names it.
    """
    manifest = verify_stored(store, resolve(store, reference))
    sizes = [int(entry["bytes"]) for entry in manifest.files.values()]
    return Verified(manifest.digest, len(sizes), sum(sizes))


def resolve(store: ObjectStore, reference: str) -> str:
    """The digest that NAME, NAME@VERSION or (the start of) a digest means.

    Raises:
        NameUnknown, VersionUnknown: it means none.
    """
    name, at, version = reference.partition("@")
    if at or "/" in name or store.get(keys.champion_key(name)) is not None:
        return read_state(store, name).resolve(version or "champion")
    return find_digest(store, reference)


def pin(store: ObjectStore, name: str, version: str, *, author: Author, reason: str) -> str:
    """Keep a version (or any stored bundle's digest) from becoming champion; gives its digest.

    Raises:
        NameUnknown, VersionUnknown: there is no such version.
        UsageError: no reason.
        LostRace: it is being removed; pinned all the same.
    """
    if not reason.strip():
        raise UsageError("a pin needs a reason", hint='add --reason "…": whoever meets the pin will read it')
    digest = _version(store, name, version)
    made = Pin(reason=reason.strip(), who=author.who, at=author.at, sequence=None)
    change_pins(store, name, lambda pins: pins.and_also({digest: made}))
    mark = read_mark(store, digest)
    if mark is not None and mark.removal.phase == "marked":
        raise being_removed(mark, name)
    return digest


def unpin(registry: Registry, name: str, version: str, *, author: Author) -> str:
    """Let a pinned version become champion again; gives its digest. Unpinning what is not pinned changes nothing.

    Raises:
        NameUnknown, VersionUnknown: there is no such version.
        LostRace: a rollback pinned it in between; its pin stays.
    """
    state = settle(registry, name, author)
    digest = _version(registry.store, name, version)
    sequence = len(state.journal.steps)
    left = change_pins(registry.store, name, lambda pins: pins.without(digest, sequence=sequence))
    if digest in left.pins:
        raise LostRace(
            f"{name}: rollback {left.pins[digest].sequence} has pinned {digest[:SHORT]} meanwhile",
            hint=f"see `saeops history {name}`, then run the same command again if it is still wanted",
        )
    return digest


def _version(store: ObjectStore, name: str, version: str) -> str:
    state = read_state(store, name)
    known = {step.entry.to_digest for step in state.settled}
    if state.champion is not None and (not _is_digest(version) or any(d.startswith(version) for d in known)):
        return state.resolve(version)
    return find_digest(store, version)


def _is_digest(text: str) -> bool:
    return len(text) >= 8 and not set(text) - set("0123456789abcdef")


def _verify_verdict(store: ObjectStore, step: Step) -> None:
    digest = step.entry.verdict
    if digest is None:
        return
    where = f"{step.entry.name}: the verdict of journal entry {step.entry.sequence}"
    found = store.get(keys.verdict_key(step.entry.name, digest))
    if found is None:
        raise broken(where, "is missing")
    if digest_bytes(found.data) != digest:
        raise broken(where, "was changed after it was given")


def _verify_pins(state: State) -> None:
    """Every rollback pinned what it left, unless a person unpinned that since."""
    for step in state.journal.done:
        for digest, owed in pin_owed(step).items():
            lifted = state.pins.lifted.get(digest, 0)
            if digest not in state.pins.pins and lifted < (owed.sequence or 0):
                raise broken(f"{state.name}: pins.json", f"lacks the pin of rollback {owed.sequence}")


def _row(step: Step, *, recoverable: bool) -> HistoryRow:
    entry, closed = step.entry, step.closing
    return HistoryRow(
        sequence=entry.sequence,
        at=entry.at,
        who=entry.who,
        action=entry.action,
        outcome=closed.outcome if closed else "open",
        from_digest=entry.from_digest,
        to_digest=entry.to_digest,
        reason=entry.reason,
        forced=entry.forced,
        verdict=entry.verdict,
        git_commit=entry.git_commit,
        recoverable=recoverable,
        note=closed.note if closed else "",
    )
