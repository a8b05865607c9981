"""Retention: remove the bundles that nothing keeps. Shown first, marked second, deleted last.

Why a promotion or rollback of the same bundle at the same moment is safe:
`promotion/retention.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from saeops.errors import IntegrityError, UsageError, VersionUnknown
from saeops.ports import ObjectStore
from saeops.promotion import keys
from saeops.promotion.protocol import Author
from saeops.promotion.retention import KEEP, Victim, kept, left_because, removal
from saeops.promotion.state import State, no_champion
from saeops.sealed import MANIFEST
from saeops.stages.records import read_state
from saeops.stages.removals import Mark, put_mark, read_mark
from saeops.stages.transfer import stored_manifest
from saeops.stages.walk import PAUSE_S, Registry


@dataclass(frozen=True)
class Kept:
    """A stored bundle that stays."""

    digest: str
    name: str
    why: str


@dataclass(frozen=True)
class Collection:
    """What would be removed, and what stays. Made without a write."""

    victims: tuple[Victim, ...]
    kept: tuple[Kept, ...]
    keep: int

    def to_json(self) -> dict[str, Any]:
        return {"victims": [asdict(v) for v in self.victims], "kept": [asdict(k) for k in self.kept]}


@dataclass(frozen=True)
class Collected:
    """What was removed, and what stays after all because something happened in between."""

    removed: tuple[Victim, ...]
    spared: tuple[tuple[Victim, str], ...]
    """With why."""

    def to_json(self) -> dict[str, Any]:
        spared = [{**asdict(victim), "spared": why} for victim, why in self.spared]
        return {"removed": [asdict(victim) for victim in self.removed], "spared": spared}


def plan(store: ObjectStore, name: str | None, *, keep: int = KEEP) -> Collection:
    """What nothing keeps. Writes nothing.

    Args:
        name: whose versions; None takes every name's, and what no journal names (uploads cut off).
        keep: how many of each name's newest champions stay.

    Raises:
        NameUnknown: nothing was ever promoted under the name.
        JournalBroken: some name's registry cannot be trusted, so nobody knows what must stay.
        UsageError: a negative `keep`.
    """
    if keep < 0:
        raise UsageError(f"--keep {keep} cannot be meant", hint="0 keeps champion, previous and pinned alone")
    states = _states(store)
    if name is not None and (name not in states or not states[name].journal.steps):
        raise no_champion(name)
    stays = _reasons(states, keep)
    named = {
        step.entry.to_digest: (each, left_because(step))
        for each, state in states.items()
        for step in state.journal.steps
    }
    victims, held = [], []
    for digest, files in keys.stored_bundles(store.list("bundles/")).items():
        owner, why = named.get(digest, (None, "no journal names it"))
        if _half_gone(store, digest, files):
            victims.append(Victim(digest, owner, "a removal was cut off", len(files), _size(store, digest, files)))
        elif digest in stays:
            held.append(Kept(digest, *stays[digest]))
        elif name is None or owner == name:
            victims.append(Victim(digest, owner, why, len(files), _size(store, digest, files)))
    return Collection(tuple(victims), tuple(k for k in held if name in (None, k.name)), keep)


def run(registry: Registry, collection: Collection, author: Author) -> Collected:
    """Remove what a plan showed, and nothing else; what is needed by now is spared. Safe to repeat.

    Killed in the middle, it leaves marked bundles without a manifest, which nobody
    takes for bundles; the next run finishes them.

    Raises:
        JournalBroken: some name's registry cannot be trusted; nothing is deleted.
    """
    store = registry.store
    marks = [(victim, _claim(registry, victim.digest, author)) for victim in collection.victims]
    # Every mark is written: an intent that is not read here will find its target marked.
    stays = _reasons(_states(store), collection.keep)
    _withdraw_stale(store, collection.kept, author)
    removed, spared = [], []
    for victim, mark in marks:
        if mark is None:
            spared.append((victim, "somebody else is removing it"))
        elif victim.digest in stays and store.get(keys.bundle_key(victim.digest, MANIFEST)) is not None:
            put_mark(store, removal(victim.digest, author, "withdrawn"), over=mark)
            spared.append((victim, stays[victim.digest][1]))
        elif _sweep(store, mark):
            put_mark(store, removal(victim.digest, author, "removed"), over=mark)
            removed.append(victim)
        else:
            spared.append((victim, "somebody else went on removing it"))
    return Collected(tuple(removed), tuple(spared))


def _claim(registry: Registry, digest: str, author: Author) -> Mark | None:
    """Our mark on a bundle; None where somebody else was quicker."""
    waited = 0.0
    before = first = read_mark(registry.store, digest)
    # Its owner may be alive and deleting; a dead one's mark does not change.
    while before is not None and before.removal.phase == "marked" and waited < registry.patience_s:
        registry.pause(PAUSE_S)
        waited += PAUSE_S
        before = read_mark(registry.store, digest)
        if before != first:
            return None
    return put_mark(registry.store, removal(digest, author, "marked"), over=before)


def _withdraw_stale(store: ObjectStore, stay: Sequence[Kept], author: Author) -> None:
    """Take back marks of removals that were cut off before they deleted anything, where the bundle stays."""
    for each in stay:
        mark = read_mark(store, each.digest)
        if mark is not None and mark.removal.phase == "marked":
            put_mark(store, removal(each.digest, author, "withdrawn"), over=mark)


def _half_gone(store: ObjectStore, digest: str, files: Sequence[str]) -> bool:
    if keys.bundle_key(digest, MANIFEST) in files:
        return False
    mark = read_mark(store, digest)
    return mark is not None and mark.removal.phase == "marked"


def _sweep(store: ObjectStore, mark: Mark) -> bool:
    """Delete a marked bundle's files, the manifest first; False when the mark was taken over on the way."""
    manifest = keys.bundle_key(mark.removal.digest, MANIFEST)
    for key in sorted(store.list(keys.bundle_key(mark.removal.digest)), key=lambda key: key != manifest):
        if read_mark(store, mark.removal.digest) != mark:
            return False
        store.delete(key)
    return True


def _states(store: ObjectStore) -> dict[str, State]:
    return {name: read_state(store, name) for name in keys.all_names(store.list("names/"))}


def _reasons(states: Mapping[str, State], keep: int) -> dict[str, tuple[str, str]]:
    """Digest → the name that keeps it, and why."""
    return {digest: (name, why) for name, state in states.items() for digest, why in kept(state, keep).items()}


def _size(store: ObjectStore, digest: str, files: Sequence[str]) -> int:
    """Bytes by the manifest; counted where there is none that can be read."""
    try:
        manifest = stored_manifest(store, digest)
    except (IntegrityError, VersionUnknown):
        return sum(len(found.data) for key in files if (found := store.get(key)) is not None)
    return sum(int(entry["bytes"]) for entry in manifest.files.values())
