"""Bundles between a folder and the object store, every byte checked on the way."""

import contextlib
import fcntl
import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saeops import sealed
from saeops.dictionary.format import KIND, check_version
from saeops.errors import FolderDamaged, SaeopsError, VersionUnknown
from saeops.files import explained, sync_folder
from saeops.ports import ObjectStore
from saeops.promotion.keys import bundle_key
from saeops.sealed import MANIFEST, Sealed


@dataclass(frozen=True)
class StoredFile:
    """One file of a stored bundle."""

    name: str
    pieces: Iterator[bytes]
    """Its bytes in order. After the last, raises FolderDamaged if they were not what the manifest says."""


def upload(store: ObjectStore, bundle: Path, digest: str, *, again: bool = False) -> None:
    """Put a verified bundle folder into the store, the manifest last; once is enough.

    Args:
        again: a removal was at it, so a manifest there says nothing about the other files.

    A killed upload leaves no manifest, so nobody takes the rest for a bundle,
    and the next one writes it again.
    """
    if not again and store.get(bundle_key(digest, MANIFEST)) is not None:
        return
    for name, entry in sealed.open_sealed(bundle, kind=KIND).files.items():
        store.put_file(bundle_key(digest, name), bundle / name, entry["sha256"])
    store.put(bundle_key(digest, MANIFEST), (bundle / MANIFEST).read_bytes())


def verify_stored(store: ObjectStore, digest: str) -> Sealed:
    """Read every byte of a bundle in the store.

    Raises:
        FolderDamaged: a file is missing, extra, or changed; names it.
        FormatUnknown: sealed by a newer saeops.
    """
    manifest = stored_manifest(store, digest)
    for file in stored_files(store, manifest):
        for _ in file.pieces:
            pass
    return manifest


def stored_manifest(store: ObjectStore, digest: str) -> Sealed:
    """The manifest of a stored bundle; raises as `verify_stored` does."""
    manifest = sealed.parse_manifest(_manifest_bytes(store, digest), _place(store, digest), kind=KIND)
    if manifest.digest != digest:
        raise _damaged(store, digest, MANIFEST, f"belongs to bundle {manifest.digest[:12]}")
    return check_version(manifest)


def stored_files(store: ObjectStore, manifest: Sealed) -> Iterator[StoredFile]:
    """Each file the manifest names, one piece of one file in memory at a time.

    Raises:
        FolderDamaged: a file is missing, extra, or changed; names it.
        ObjectDamaged: the store itself says so.
    """
    prefix = bundle_key(manifest.digest)
    present = {key.removeprefix(prefix) for key in store.list(prefix)} - {MANIFEST}
    for name in sorted(present - manifest.files.keys()):
        raise _damaged(store, manifest.digest, name, "is not in the manifest")
    for name, entry in manifest.files.items():
        pieces = store.pieces(prefix + name)
        if pieces is None:
            raise _damaged(store, manifest.digest, name, "is missing")
        changed = _damaged(store, manifest.digest, name, "changed since it was sealed")
        yield StoredFile(name, _checked(pieces, entry, changed))


def fetch(store: ObjectStore, digest: str, cache: Path) -> Path:
    """A verified copy of a stored bundle in the local cache; from there once it is, with no store needed.

    Several processes may fetch at once: one of them builds the copy and the others
    wait for it. A killed one's lock is freed by the kernel, and the next begins anew.

    Raises:
        FolderDamaged, FormatUnknown: as `verify_stored`.
        DiskFull, StoreDenied: the cache cannot be written.
    """
    target = cached_path(cache, digest)
    if cached(target, digest):
        return target
    with explained(target), _alone(cache / "locks" / digest):
        if cached(target, digest):
            return target
        manifest = stored_manifest(store, digest)
        incoming = cache / "incoming" / digest
        # Whoever left something there is dead, for the lock is ours.
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            # Damaged. Moved first, so that nobody meets half of it while it goes.
            target.replace(incoming)
            shutil.rmtree(incoming)
        try:
            _copy(store, manifest, incoming)
            target.parent.mkdir(parents=True, exist_ok=True)
            incoming.replace(target)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
        sync_folder(target.parent)
    return target


def cached_path(cache: Path, digest: str) -> Path:
    """Where the cache keeps a bundle."""
    return cache / "bundles" / digest


def cached(target: Path, digest: str) -> bool:
    """Whether the cache holds this bundle whole; a copy that went bad is no reason to fail."""
    try:
        return sealed.verify(target, kind=KIND).digest == digest
    except (SaeopsError, FileNotFoundError):
        # The second: it was damaged, and another process took it away while this one looked.
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


def _checked(pieces: Iterator[bytes], entry: Mapping[str, Any], changed: FolderDamaged) -> Iterator[bytes]:
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
        yield piece
    if (size, digest.hexdigest()) != (entry["bytes"], entry["sha256"]):
        raise changed


def _manifest_bytes(store: ObjectStore, digest: str) -> bytes:
    found = store.get(bundle_key(digest, MANIFEST))
    if found is None:
        # Whoever asks has the digest from a journal or from a listing, and what a journal names is never removed.
        raise _damaged(store, digest, MANIFEST, "is missing")
    return found.data


def _copy(store: ObjectStore, manifest: Sealed, folder: Path) -> None:
    for file in stored_files(store, manifest):
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as written:
            written.writelines(file.pieces)
    (folder / MANIFEST).write_bytes(_manifest_bytes(store, manifest.digest))


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold a lock file, waiting for whoever holds it; the kernel frees it when a process dies."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _place(store: ObjectStore, digest: str) -> Path:
    return Path(store.address) / "bundles" / digest


def _damaged(store: ObjectStore, digest: str, name: str, what: str) -> FolderDamaged:
    return FolderDamaged(
        f"{store.address}/{bundle_key(digest, name)}: {what}",
        hint="the champion is not touched; roll back to a whole version, or restore this file from a backup",
    )
