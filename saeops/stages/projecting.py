"""Keeping the readable copy up: after an operation, for a candidate, and after a refusal. Nothing waits for it."""

import contextlib
from collections.abc import Collection
from pathlib import Path

from saeops.errors import SaeopsError
from saeops.ports import ObjectStore, RegistryProjection
from saeops.promotion import keys
from saeops.promotion.projection import AliasChange, Register, Retag, Shown, Wanted, repairs, wanted
from saeops.promotion.state import State
from saeops.stages.records import read_state
from saeops.stages.removals import read_mark


def follow(store: ObjectStore, projection: RegistryProjection, name: str, digest: str, bundle: Path | None) -> str:
    """Let the copy show an operation whose pointer was moved; the problem in words where that fails.

    Args:
        bundle: the new champion's folder, where one is at hand to register.
    """
    try:
        if bundle is not None:
            projection.register(name, digest, bundle, {})
        shown = projection.shown(name)
        if shown is None:
            return ""
        for repair in repairs(wanted_now(store, read_state(store, name), shown), shown):
            if not isinstance(repair, Register):
                apply(projection, name, repair)
    except Exception as error:
        # Whatever the tracker raises, the champion stands: the copy is repaired later.
        return error.message if isinstance(error, SaeopsError) else f"{type(error).__name__}: {error}"
    return ""


def announce(
    store: ObjectStore, projection: RegistryProjection, name: str, digest: str, bundle: Path, *, params: str
) -> None:
    """Show a built bundle under the alias `candidate`, unless it is champion.

    Raises:
        TrackerUnreachable: MLflow does not answer.
    """
    projection.register(name, digest, bundle, {"saeops.params": params})
    if projection.shown(name) is not None and read_state(store, name).champion != digest:
        projection.point(name, "candidate", digest)


def refuse(projection: RegistryProjection, name: str, digest: str, *, verdict: str) -> None:
    """Take the alias `candidate` from a bundle that the judge failed; its version stays, and names the verdict."""
    # The refusal itself must be what is seen, and `saeops reconcile` finds the verdict in the store.
    with contextlib.suppress(Exception):
        shown = projection.shown(name)
        if shown is None or shown.version_of(digest) is None:
            return
        projection.tag(name, digest, {"refused": verdict})
        if shown.digests().get("candidate") == digest:
            projection.point(name, "candidate", None)


def apply(projection: RegistryProjection, name: str, repair: Retag | AliasChange) -> None:
    """Repair what needs no bundle.

    Raises:
        VersionUnknown: the version is not there (any more).
        TrackerUnreachable: MLflow does not answer.
    """
    match repair:
        case Retag():
            projection.tag(name, repair.digest, repair.wanted)
        case AliasChange():
            projection.point(name, repair.alias, repair.wanted)


def wanted_now(store: ObjectStore, state: State, shown: Shown, *, refused: Collection[str] = ()) -> Wanted:
    """What the copy should show, removals included."""
    known = {step.entry.to_digest for step in state.settled} | set(shown.digests().values())
    removed = {}
    marked = set(store.list("removals/"))
    for digest in sorted(digest for digest in known if keys.removal_key(digest) in marked):
        mark = read_mark(store, digest)
        if mark is not None and mark.removal.phase != "withdrawn":
            removed[digest] = f"{mark.removal.at} by {mark.removal.who}"
    return wanted(state, shown, removed=removed, refused=refused)
