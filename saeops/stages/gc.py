"""Retention: remove the bundles that no journal names. Shown first, marked second, deleted last.

Why a promotion of the same bundle at the same moment is safe: `promotion/retention.py`.
"""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from saeops.dictionary.format import PROVENANCE
from saeops.errors import IntegrityError
from saeops.ports import ObjectStore
from saeops.promotion import keys
from saeops.promotion.protocol import Author
from saeops.promotion.retention import Victim, kept, removal
from saeops.promotion.state import State
from saeops.sealed import MANIFEST
from saeops.stages.records import read_state
from saeops.stages.removals import Mark, put_mark, read_mark
from saeops.stages.walk import PAUSE_S, Registry


@dataclass(frozen=True)
class Kept:
    """A stored bundle that stays."""

    digest: str
    name: str
    """Whose journal or pins keep it."""
    why: str
    marked: bool
    """A removal was cut off before it saw that: its mark is to be taken back."""


@dataclass(frozen=True)
class Collection:
    """What would be removed, and what stays. Made without a write."""

    victims: tuple[Victim, ...]
    kept: tuple[Kept, ...]

    @property
    def idle(self) -> bool:
        """There is nothing to do."""
        return not self.victims and not any(each.marked for each in self.kept)

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


def plan(store: ObjectStore) -> Collection:
    """What nothing keeps: bundles that no journal entry of any name ever named as a target, and nobody pinned.

    Writes nothing.

    Raises:
        JournalBroken: some name's registry cannot be trusted, so nobody knows what must stay.
    """
    sizes = store.sizes("bundles/")
    # After the listing: whatever was uploaded and promoted since then is not in it.
    stays = _reasons(store)
    marks = set(store.list("removals/"))
    victims, held = [], []
    for digest, files in keys.stored_bundles(sorted(sizes)).items():
        if digest in stays:
            marked = keys.removal_key(digest) in marks and _is_marked(store, digest)
            held.append(Kept(digest, *stays[digest], marked))
        else:
            whole = keys.bundle_key(digest, MANIFEST) in files
            why = "no journal names it" if whole else "unfinished, and no journal names it"
            total = sum(sizes[file] for file in files)
            victims.append(Victim(digest, _told_name(store, digest), why, len(files), total))
    return Collection(tuple(victims), tuple(held))


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
    stays = _reasons(store)
    for each in collection.kept:
        if each.marked and (stale := _claim(registry, each.digest, author)) is not None:
            put_mark(store, removal(each.digest, author, "withdrawn"), over=stale)
    removed, spared = [], []
    for victim, mark in marks:
        if mark is None:
            spared.append((victim, "somebody else is removing it"))
        elif victim.digest in stays:
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


def _sweep(store: ObjectStore, mark: Mark) -> bool:
    """Delete a marked bundle's files, the manifest first; False when the mark was taken over on the way."""
    manifest = keys.bundle_key(mark.removal.digest, MANIFEST)
    for key in sorted(store.list(keys.bundle_key(mark.removal.digest)), key=lambda key: key != manifest):
        if read_mark(store, mark.removal.digest) != mark:
            return False
        store.delete(key)
    return True


def _reasons(store: ObjectStore) -> Mapping[str, tuple[str, str]]:
    """Digest → the name that keeps it, and why."""
    names = keys.all_names(store.list("names/"))
    states: dict[str, State] = {name: read_state(store, name) for name in names}
    return {digest: (name, why) for name, state in states.items() for digest, why in kept(state).items()}


def _is_marked(store: ObjectStore, digest: str) -> bool:
    mark = read_mark(store, digest)
    return mark is not None and mark.removal.phase == "marked"


def _told_name(store: ObjectStore, digest: str) -> str | None:
    with contextlib.suppress(IntegrityError, ValueError, TypeError, KeyError):
        found = store.get(keys.bundle_key(digest, PROVENANCE))
        return str(json.loads(found.data)["name"]) if found is not None else None
    return None
