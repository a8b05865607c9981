"""Restoring a version in a worktree of its own: code, params, lock and data, as when it was built."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saeops.dictionary.bundle import open_bundle, seal_reviews
from saeops.dictionary.provenance import Provenance, code_digest, lock_digest
from saeops.errors import DataDamaged, FolderDamaged, FolderInUse, FormatUnknown, StageMissing
from saeops.files import write_atomic
from saeops.ports import DataVersions, ObjectStore, Sources
from saeops.promotion.recipe import Recipe
from saeops.promotion.state import SHORT
from saeops.refs import Workspace
from saeops.sealed import open_sealed, verify
from saeops.stages import recipes
from saeops.stages.recipes import PACKAGE
from saeops.stages.registry import resolve

MARK = Path("artifacts", ".restoring")
"""Names the version that a folder is being restored to; gone once it is whole."""


@dataclass(frozen=True)
class CheckedOut:
    """A version as it was built, restored and compared byte by byte."""

    folder: Path
    name: str
    version: str
    """Digest."""
    candidate: str
    """Digest of `artifacts/bundle`, which its stages made."""
    decisions: int
    """Of people, sealed into the version, which is `artifacts/reviewed` then."""
    commit: str
    uncommitted: tuple[str, ...]
    """Files that no commit held when it was built; they come from the recipe."""
    files: int
    """Restored through DVC."""
    bytes: int
    same_code: bool
    """Whether the sources in the folder are those that made it; else a rebuild gives another digest."""
    same_environment: bool
    """Whether requirements.lock in the folder is the one that it was made with."""

    def to_json(self) -> dict[str, Any]:
        return {**self.__dict__, "folder": str(self.folder), "uncommitted": list(self.uncommitted)}


def find(reference: str, *, store: ObjectStore) -> Recipe:
    """The recipe of the version that NAME, NAME@VERSION or a digest means; its bundle may be gone from the store.

    Raises:
        NameUnknown, VersionUnknown: it means none.
        RecipeMissing: none was kept of it.
        JournalBroken, FormatUnknown: the registry cannot be trusted.
    """
    return recipes.read(store, resolve(store, reference), of=reference)


def run(recipe: Recipe, *, folder: Path, sources: Sources, data: DataVersions) -> CheckedOut:
    """Restore a version into a worktree, and compare every byte; killed, the same call goes on.

    Args:
        folder: absent, empty, or where an earlier call for this version was cut off.

    Raises:
        FolderInUse: it holds something else.
        CommitMissing: the repository does not have the commit.
        DataMissing, DataDamaged: DVC's remote lacks data, or holds others.
        DataVersionsFailed: it does not answer.
        UsageError: git refuses, or DVC has no remote.
    """
    _claim(folder, recipe, sources)
    sources.fill(folder, recipe.commit)
    for path, text in recipe.files.items():
        if text is None:
            (folder / path).unlink(missing_ok=True)
        else:
            write_atomic(folder / path, text.encode())
    data.restore(folder)
    done = _compared(folder, recipe)
    (folder / MARK).unlink()
    return done


def _claim(folder: Path, recipe: Recipe, sources: Sources) -> None:
    """Make the folder a worktree under this version's mark."""
    mark = folder / MARK
    if mark.is_file() and mark.read_text() == recipe.bundle and sources.is_placed(folder):
        return
    held = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if folder.exists() and (not folder.is_dir() or held - {".git"} or (held and not sources.is_placed(folder))):
        raise FolderInUse(
            f"{folder} holds something else already",
            hint=f"choose another with --into; an earlier checkout goes by `git worktree remove --force {folder}`",
        )
    if not held:
        sources.place(folder, recipe.commit)
    write_atomic(mark, recipe.bundle.encode())


def _compared(folder: Path, recipe: Recipe) -> CheckedOut:
    """Every restored byte against the seals, from the version's digest down."""
    space = Workspace(root=folder)
    try:
        bundle = open_bundle(space.bundle)
        _same("bundle", bundle.digest, recipe.candidate)
        parts = [open_sealed(space.bundle, kind="bundle")]
        for kind, digest in bundle.provenance.upstream.items():
            parts.append(verify(getattr(space, kind), kind=kind))
            _same(kind, parts[-1].digest, digest)
    except (FolderDamaged, FormatUnknown, StageMissing) as error:
        raise DataDamaged(
            f"what DVC's remote gave for {recipe.bundle[:SHORT]} is not what was sealed: {error.message}",
            hint="restore the remote from a backup, or `dvc push` where it was built; then run this again",
        ) from error
    decisions = recipe.decisions()
    version = seal_reviews(space.bundle, decisions, space.reviewed).digest if decisions else bundle.digest
    _same("reviewed", version, recipe.bundle)
    sizes = [int(entry["bytes"]) for part in parts for entry in part.files.values()]
    return CheckedOut(
        folder=folder,
        name=recipe.name,
        version=version,
        candidate=bundle.digest,
        decisions=len(decisions),
        commit=recipe.commit,
        uncommitted=recipe.uncommitted,
        files=len(sizes),
        bytes=sum(sizes),
        same_code=_same_code(folder, bundle.provenance),
        same_environment=lock_digest(folder) == bundle.provenance.lock,
    )


def _same(kind: str, found: str, sealed: str) -> None:
    if found != sealed:
        raise DataDamaged(
            f"artifacts/{kind} was restored as {found[:SHORT]}, and the version was made with {sealed[:SHORT]}",
            hint="the recipe and DVC's remote do not belong together: was the remote exchanged?",
        )


def _same_code(folder: Path, provenance: Provenance) -> bool:
    package = folder / PACKAGE
    return package.is_dir() and code_digest(package) == provenance.code
