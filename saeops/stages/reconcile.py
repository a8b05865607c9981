"""Reconciling: make the readable copy tell what the store says, whatever happened to it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saeops.errors import IntegrityError, VersionUnknown
from saeops.ports import ObjectStore
from saeops.promotion import keys
from saeops.promotion.projection import Register, Repair, Shown, Wanted, as_json, repairs
from saeops.promotion.protocol import Author
from saeops.promotion.state import SHORT, State, no_champion
from saeops.stages.projecting import apply, wanted_now
from saeops.stages.records import read_state
from saeops.stages.transfer import fetch
from saeops.stages.verdicts import read_verdict
from saeops.stages.walk import Registry, settle


@dataclass(frozen=True)
class Reconciled:
    """What was done, and what was not."""

    repairs: tuple[Repair, ...] = ()
    """In the order in which they were done; on a dry run, in which they would be."""
    left: tuple[str, ...] = ()
    """What the copy shows beside the registry, or lacks for good, and why; a line each."""
    kept: bool = True
    """False where no copy is kept."""

    def to_json(self) -> dict[str, Any]:
        return {
            "repaired": [str(repair) for repair in self.repairs],
            "repairs": [as_json(repair) for repair in self.repairs],
            "left": list(self.left),
            "kept": self.kept,
        }


def run(registry: Registry, name: str, *, cache: Path, author: Author, dry_run: bool = False) -> Reconciled:
    """Repair the copy of one name: versions, tags, aliases; safe to repeat, and then there is nothing to do.

    Raises:
        NameUnknown: the name has no champion.
        IntegrityError: the champion, or the one before it, must be registered again and is not whole.
        TrackerUnreachable: MLflow does not answer; what was repaired so far stays.
    """
    done: list[Repair] = []
    broken: dict[str, str] = {}
    while True:
        state = read_state(registry.store, name) if dry_run else settle(registry, name, author)
        if state.champion is None:
            raise no_champion(name)
        shown = registry.projection.shown(name)
        if shown is None:
            return Reconciled(kept=False)
        want = wanted_now(registry.store, state, shown, refused=_refused(registry.store, state, shown))
        due = repairs(want, shown)
        done += due if dry_run else (r for r in due if _done(registry, name, r, want, cache, broken))
        # Whoever moved the champion meanwhile told the copy before this did, or after, or in between.
        if dry_run or read_state(registry.store, name).etag == state.etag:
            return Reconciled(tuple(done), (*broken.values(), *_beside(want, shown)))


def _done(
    registry: Registry, name: str, repair: Repair, want: Wanted, cache: Path, broken: dict[str, str]
) -> bool:
    """Carry out one repair; False where a version has no whole bundle to be made from, and `broken` says so."""
    if not isinstance(repair, Register):
        apply(registry.projection, name, repair)
        return True
    digest = repair.digest
    try:
        bundle = fetch(registry.store, digest, cache)
    except (IntegrityError, VersionUnknown) as error:
        # One damaged old bundle must not keep the aliases from being repaired.
        if digest in want.aliases.values():
            raise
        broken[digest] = f"version {digest[:SHORT]} stays missing: {error.message}"
        return False
    registry.projection.register(name, digest, bundle, repair.tags)
    return True


def _refused(store: ObjectStore, state: State, shown: Shown) -> set[str]:
    """The candidate, if every verdict on it beside this champion was `fail`: nobody is to wait for it."""
    candidate = shown.digests().get("candidate")
    if candidate is None:
        return set()
    folder = keys.verdict_key(state.name, "").removesuffix(".json")
    stored = keys.plain_among(store.list(folder), folder)
    given = [read_verdict(store, state.name, key.removeprefix(folder).removesuffix(".json")) for key in stored]
    ours = {v.outcome for v in given if v.bundle == candidate and v.champion == state.champion}
    return {candidate} if ours == {"fail"} else set()


def _beside(want: Wanted, shown: Shown) -> list[str]:
    """What is none of the registry's business, or beyond repair."""
    foreign = [
        f"version {version.number} stays: it was not made from a bundle"
        for version in shown.versions
        if version.digest is None
    ]
    aliases = [
        f"alias {alias} stays on version {number}: the registry keeps {', '.join(want.aliases)} alone"
        for alias, number in sorted(shown.aliases.items())
        if alias not in want.aliases
    ]
    gone = [
        f"version {digest[:SHORT]} stays missing: its bundle was removed from the store, {when}"
        for digest, when in want.removed.items()
        if digest in want.versions and shown.version_of(digest) is None
    ]
    return [*foreign, *aliases, *gone]
