"""Watching a model source: a new version is reported once, and the registry remembers it.

The report comes first and the record after it. Killed in between, the next look
reports again, under the same event id, so that whoever acts on it knows the
repeat: at least once sent, once meant.
"""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from saeops.config import Frozen
from saeops.drift.policy.records import ModelSeen
from saeops.drift.policy.sources import Glimpse, ModelSource, ModelVersion, NotWhole
from saeops.files import write_atomic
from saeops.ports import ObjectStore
from saeops.promotion.protocol import Author
from saeops.promotion.state import SHORT
from saeops.stages import state
from saeops.stages.drift_records import put_model, read_model
from saeops.stages.records import read_state


@dataclass(frozen=True)
class NewModel:
    """The event that a model version appeared."""

    id: str
    """A UUID that follows from name and digest: a repeat of the event is the same event."""
    seen: ModelSeen


@dataclass(frozen=True)
class Known:
    """Nothing new: this version was reported before, or the champion was built on it."""

    digest: str
    source: str


Watched = NewModel | Known | NotWhole
Emit = Callable[[NewModel], None]


class Remembered(Frozen):
    """What the last look at a source showed; a cache on this machine that may be lost."""

    fingerprint: str
    ref: str | None = None
    digest: str | None = None
    """None: seen once, not yet read."""


def run(
    name: str, source: ModelSource, *, store: ObjectStore, memory: Path, author: Author, emit: Emit
) -> Watched:
    """Look once, and report what is new since the last look.

    Args:
        memory: a folder of this machine where the last look at each source is kept.
        emit: told of a new version before it is recorded; it raises where it cannot tell anybody.

    Raises:
        Unavailable, ModelUnavailable: the source does not answer, or holds what cannot be loaded.
        JournalBroken, FormatUnknown: the registry cannot be trusted.
    """
    if read_state(store, name).champion is None:
        return NotWhole(f"{name} has no champion yet, whose model could change")
    version = _version(source, memory / f"{_event_id(name, source.address)}.json")
    if isinstance(version, NotWhole):
        return version
    if read_model(store, name, version.digest) is not None:
        return Known(version.digest, source.address)
    seen = ModelSeen(name=name, ref=version.ref, digest=version.digest, source=source.address, at=author.at)
    facts = state.facts(store, name)
    if facts.built_on.get(facts.champion.digest) == version.digest:
        put_model(store, seen)
        return Known(version.digest, source.address)
    event = NewModel(_event_id(name, version.digest), seen)
    emit(event)
    put_model(store, seen)
    return event


def describe(watched: Watched) -> str:
    """One line for people."""
    match watched:
        case NewModel(seen=seen):
            return f"new: model {seen.digest[:SHORT]} at {seen.source}"
        case Known(digest=digest, source=address):
            return f"nothing new: model {digest[:SHORT]} at {address}"
        case NotWhole(why=why):
            return f"not yet: {why}"


def _version(source: ModelSource, memory: Path) -> ModelVersion | NotWhole:
    glimpse = source.look()
    if isinstance(glimpse, NotWhole):
        return glimpse
    before = _recall(memory)
    same = before is not None and before.fingerprint == glimpse.fingerprint
    if before is not None and same and before.digest is not None and before.ref is not None:
        return ModelVersion(before.ref, before.digest)
    if not same and not glimpse.final:
        _remember(memory, glimpse, None)
        return NotWhole(f"{source.address} changed since the last look: it is taken once it rests")
    version = source.take(glimpse)
    if isinstance(version, ModelVersion):
        _remember(memory, glimpse, version)
    return version


def _recall(memory: Path) -> Remembered | None:
    try:
        return Remembered.model_validate(json.loads(memory.read_bytes()))
    except (FileNotFoundError, ValueError, ValidationError):
        return None


def _remember(memory: Path, glimpse: Glimpse, version: ModelVersion | None) -> None:
    ref, digest = (version.ref, version.digest) if version else (None, None)
    kept = Remembered(fingerprint=glimpse.fingerprint, ref=ref, digest=digest)
    write_atomic(memory, kept.model_dump_json().encode())


def _event_id(name: str, what: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"saeops:{name}:{what}"))
