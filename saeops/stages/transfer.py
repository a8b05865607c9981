"""Bundles between a folder and the object store, every byte checked on the way."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from saeops import sealed
from saeops.dictionary.format import KIND, check_version
from saeops.digests import digest_bytes
from saeops.errors import FolderDamaged, SaeopsError, VersionUnknown
from saeops.files import explained, sync_folder
from saeops.ports import ObjectStore
from saeops.promotion.keys import bundle_key
from saeops.sealed import MANIFEST, Sealed


@dataclass(frozen=True)
class StoredFile:
    """One file of a stored bundle, checked against the manifest."""

    name: str
    data: bytes


def upload(store: ObjectStore, bundle: Path, digest: str, *, again: bool = False) -> None:
    """Put a verified bundle folder into the store, the manifest last; once is enough.

    Args:
        again: a removal was at it, so a manifest there says nothing about the other files.

    A killed upload leaves no manifest, so nobody takes the rest for a bundle,
    and the next one writes it again.
    """
    if not again and store.get(bundle_key(digest, MANIFEST)) is not None:
        return
    names = sorted(p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file())
    for name in [*(n for n in names if n != MANIFEST), MANIFEST]:
        store.put(bundle_key(digest, name), (bundle / name).read_bytes())


def verify_stored(store: ObjectStore, digest: str) -> Sealed:
    """Read every byte of a bundle in the store.

    Raises:
        VersionUnknown: there is no such bundle.
        FolderDamaged: a file is missing, extra, or changed; names it.
        FormatUnknown: sealed by a newer saeops.
    """
    manifest = stored_manifest(store, digest)
    for _ in stored_files(store, manifest):
        pass
    return manifest


def stored_manifest(store: ObjectStore, digest: str) -> Sealed:
    """The manifest of a stored bundle; raises as `verify_stored` does."""
    manifest = sealed.parse_manifest(_manifest_bytes(store, digest), _place(store, digest), kind=KIND)
    if manifest.digest != digest:
        raise _damaged(manifest, MANIFEST, f"belongs to bundle {manifest.digest[:12]}")
    return check_version(manifest)


def stored_files(store: ObjectStore, manifest: Sealed) -> Iterator[StoredFile]:
    """Each file the manifest names, one in memory at a time.

    Raises:
        FolderDamaged: a file is missing, extra, or changed; names it.
    """
    prefix = bundle_key(manifest.digest)
    present = {key.removeprefix(prefix) for key in store.list(prefix)} - {MANIFEST}
    for name in sorted(present - manifest.files.keys()):
        raise _damaged(manifest, name, "is not in the manifest")
    for name, entry in manifest.files.items():
        found = store.get(prefix + name)
        if found is None:
            raise _damaged(manifest, name, "is missing")
        if len(found.data) != entry["bytes"] or digest_bytes(found.data) != entry["sha256"]:
            raise _damaged(manifest, name, "changed since it was sealed")
        yield StoredFile(name, found.data)


def fetch(store: ObjectStore, digest: str, cache: Path) -> Path:
    """A verified copy of a stored bundle in the local cache; from there once it is, with no store needed.

    Several processes may fetch at once: each builds its own copy, the first
    one renamed into place stays.

    Raises:
        VersionUnknown, FolderDamaged, FormatUnknown: as `verify_stored`.
        DiskFull, StoreDenied: the cache cannot be written.
    """
    target = cache / "bundles" / digest
    if cached(target, digest):
        return target
    manifest = stored_manifest(store, digest)
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{digest[:12]}."))
        try:
            for file in stored_files(store, manifest):
                (work / file.name).parent.mkdir(parents=True, exist_ok=True)
                (work / file.name).write_bytes(file.data)
            (work / MANIFEST).write_bytes(_manifest_bytes(store, digest))
            _place_copy(work, target, digest)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return target


def cached(target: Path, digest: str) -> bool:
    """Whether the cache holds this bundle whole; a copy that went bad is no reason to fail."""
    try:
        return sealed.verify(target, kind=KIND).digest == digest
    except SaeopsError:
        return False


def find_digest(store: ObjectStore, text: str) -> str:
    """The full digest of a stored bundle from (at least eight digits of) it.

    Raises:
        VersionUnknown: none or several begin like this.
    """
    if not re.fullmatch(r"[0-9a-f]{8,64}", text):
        raise VersionUnknown(
            f"{text!r} is neither NAME@VERSION nor a bundle's digest",
            hint="write name@champion, name@previous, name@<seq>, a digest, or a bundle's folder",
        )
    digests = sorted({key.split("/")[1] for key in store.list(f"bundles/{text}")})
    if len(digests) != 1:
        what = "no bundle" if not digests else f"{len(digests)} bundles"
        raise VersionUnknown(
            f"{what} in {store.address} whose digest begins with {text}",
            hint="`saeops history NAME` lists the digests of a name's versions",
        )
    return digests[0]


def _manifest_bytes(store: ObjectStore, digest: str) -> bytes:
    found = store.get(bundle_key(digest, MANIFEST))
    if found is None:
        raise VersionUnknown(
            f"no bundle {digest[:12]} in {store.address}",
            hint="`saeops history NAME` lists the versions; promote uploads one",
        )
    return found.data


def _place_copy(work: Path, target: Path, digest: str) -> None:
    try:
        work.replace(target)
    except OSError:
        # Another process was first; or what lies there is damaged, and makes room.
        if cached(target, digest):
            return
        shutil.rmtree(target, ignore_errors=True)
        work.replace(target)
    sync_folder(target.parent)


def _place(store: ObjectStore, digest: str) -> Path:
    return Path(store.address) / "bundles" / digest


def _damaged(manifest: Sealed, name: str, what: str) -> FolderDamaged:
    return FolderDamaged(
        f"{manifest.path / name}: {what}",
        hint="the champion is not touched; roll back to a whole version, or restore this file from a backup",
    )
