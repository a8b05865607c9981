"""Loading a dictionary: find it, verify every byte, keep a local copy.

While the store is away, what was loaded before is served from that copy, with a warning that says how old it is.
"""

import datetime
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from saeops.dictionary.bundle import Bundle, open_bundle
from saeops.dictionary.handle import Dictionary
from saeops.errors import (
    IntegrityError,
    NameUnknown,
    SaeopsError,
    StageMissing,
    StaleAnswer,
    StoreUnreachable,
    VersionUnknown,
)
from saeops.ports import ObjectStore
from saeops.promotion import keys
from saeops.promotion.state import SHORT
from saeops.sealed import MANIFEST
from saeops.stages.answers import Answer, recall, remember
from saeops.stages.records import read_state
from saeops.stages.transfer import cached_path, fetch, find_digest

Clock = Callable[[], datetime.datetime]
MOVING = ("champion", "previous")
"""Versions that mean another bundle after a promotion or a rollback."""


def utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def run(reference: str, *, store: ObjectStore, cache: Path, now: Clock = utc_now) -> Dictionary:
    """The dictionary that a reference means: `find`, ready to use, and able to `refresh`."""
    if _is_folder(reference):
        return Dictionary(open_bundle(Path(reference)))
    source = Source(store, cache, now)
    return source.open(source.answer(reference))


def find(reference: str, *, store: ObjectStore, cache: Path, now: Clock = utc_now) -> Bundle:
    """The bundle that a reference means.

    Args:
        reference: `name@champion`, `name@previous`, `name@<seq>`, a digest, or a bundle's folder.

    Raises:
        NameUnknown, VersionUnknown: it means none.
        FolderDamaged: a file of it is missing, extra, or changed; names it.
        FormatUnknown: sealed by a newer saeops.
        StoreUnreachable: the store is away, and this machine has no whole copy.

    Warns:
        StaleAnswer: the store is away; the bundle is what the reference meant when it was last asked.
    """
    if _is_folder(reference):
        return open_bundle(Path(reference))
    source = Source(store, cache, now)
    return source.bundle(source.answer(reference))


@dataclass(frozen=True)
class Source:
    """A store, and the local cache of what was loaded from it."""

    store: ObjectStore
    cache: Path
    now: Clock

    def open(self, answer: Answer) -> Dictionary:
        """The dictionary that an answer names."""
        return Dictionary(self.bundle(answer), refresh=Follow(self, answer).refresh)

    def bundle(self, answer: Answer) -> Bundle:
        """Its verified local copy; fetched where there is none, or a damaged one."""
        copy = cached_path(self.cache, answer.digest)
        try:
            bundle = open_bundle(copy)
        except (IntegrityError, StageMissing, FileNotFoundError):
            # The last: it was damaged, and another process took it away while this one looked.
            bundle = open_bundle(fetch(self.store, answer.digest, self.cache))
        remember(self.cache, answer)
        return bundle

    def answer(self, reference: str) -> Answer:
        """What the store says that a reference means; while it is away, what it last said."""
        try:
            return self.ask(reference)
        except (StoreUnreachable, NameUnknown, VersionUnknown) as error:
            known = recall(self.cache, self.store.address, reference)
            if known is None or not self._away(error):
                raise
            warnings.warn(
                f"{error.message}; {reference} is served from the cache as it was {known.age(self.now())} ago"
                f" ({known.at.isoformat(timespec='seconds')}): {known.digest[:SHORT]}",
                StaleAnswer,
                stacklevel=4,
            )
            return known

    def ask(self, reference: str) -> Answer:
        """What the store says that a reference means."""
        asked_at, address = self.now(), self.store.address
        name, versioned, version = reference.partition("@")
        if not versioned and "/" not in name and self.store.get(keys.champion_key(name)) is None:
            digest = find_digest(self.store, reference)
            return Answer(store=address, reference=reference, digest=digest, at=asked_at)
        state, version = read_state(self.store, name), version or "champion"
        answer = Answer(store=address, reference=reference, digest=state.resolve(version), at=asked_at)
        return answer.model_copy(update={"name": name, "etag": state.etag}) if version in MOVING else answer

    def _away(self, error: SaeopsError) -> bool:
        # A folder that is not mounted looks like an empty store; journals are never deleted.
        return isinstance(error, StoreUnreachable) or not self.store.list("names/")


class Follow:
    """Notices when what a reference means changes."""

    def __init__(self, source: Source, answer: Answer) -> None:
        self._source, self._answer = source, answer

    def refresh(self) -> Dictionary | None:
        """The dictionary that the reference means now; None: still the same.

        One get of the name's pointer where nobody moved it, nothing at all where the reference cannot move.
        """
        known = self._answer
        if known.name is None:
            return None
        pointer = self._source.store.get(keys.champion_key(known.name))
        if pointer is not None and pointer.etag == known.etag:
            return None
        answer = self._source.ask(known.reference)
        if answer.digest != known.digest:
            return self._source.open(answer)
        # The pointer was rewritten for the same bundle: a voided operation, or there and back again.
        self._answer = answer
        return None


def _is_folder(reference: str) -> bool:
    return "@" not in reference and (Path(reference) / MANIFEST).is_file()
