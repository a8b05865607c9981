"""Object stores: bytes under keys with compare-and-swap, in a folder or in memory.

`LocalStore` is the embedded default; `MemoryStore` is its fake, held to the
same contract by tests/contract/test_object_store.py, as is `S3Store` in s3.py.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from saeops.digests import digest_bytes
from saeops.errors import FolderDamaged, StoreDenied, StoreUnreachable, ToolMissing, UsageError
from saeops.files import explained, sync_folder
from saeops.ports import Found, ObjectStore

LOCK = ".lock"
INCOMING = ".incoming"
PIECE_BYTES = 8 * 2**20
"""How much of a large file is in memory at a time."""


def open_store(address: str) -> ObjectStore:
    """The store at an address: a folder (made on the first write), or s3://bucket/prefix.

    Raises:
        UsageError: an address that is neither.
        ToolMissing: boto3 is not installed.
    """
    if "://" not in address:
        return LocalStore(Path(address))
    if not address.startswith("s3://"):
        raise UsageError(
            f"{address.split('://')[0]}://… is no store that saeops knows",
            hint="set SAEOPS_STORE to a folder or to s3://bucket/prefix, or unset it for the default",
        )
    try:
        from saeops.adapters.s3 import open_s3
    except ModuleNotFoundError as error:
        raise ToolMissing("boto3 is not installed", hint="pip install 'saeops[s3]'") from error
    return open_s3(address)


def check_key(key: str) -> str:
    """The key, if it may be one: `/`-separated parts, none empty and none starting with a dot.

    Raises:
        UsageError: it may not.
    """
    if any(not part or part.startswith(".") for part in key.split("/")):
        raise UsageError(
            f"{key!r} cannot be a key in the store",
            hint="write the dictionary's name as model-family/site, without dots at the start of a part",
        )
    return key


class LocalStore:
    """A folder as an object store. An etag is the sha256 of the bytes.

    Writers take turns on a lock file, which the kernel frees when a process
    dies. Under it bytes go to one file beside the data, reach the disk, and
    are renamed into place: readers need no lock and see whole objects.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.address = str(root)

    def get(self, key: str) -> Found | None:
        with self._explained("read"):
            data = _read(self._path(key))
        return None if data is None else Found(data, digest_bytes(data))

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str | None:
        path = self._path(key)
        with self._explained("write"), self._locked():
            if if_absent and path.exists():
                return None
            if if_match is not None and _etag(path) != if_match:
                return None
            self._make_folder(path.parent)
            self._write(path, data)
        return digest_bytes(data)

    def pieces(self, key: str) -> Iterator[bytes] | None:
        with self._explained("read"):
            try:
                file = self._path(key).open("rb")
            except (FileNotFoundError, IsADirectoryError):
                return None
        return self._read_pieces(file)

    def put_file(self, key: str, path: Path, sha256: str) -> None:
        target = self._path(key)
        with self._explained("write"):
            self._make_folder(target.parent)
            with _only_writer(self.root / f"{INCOMING}-{sha256}") as incoming:
                _copy(path, incoming, sha256)
                Path(incoming.name).replace(target)
                sync_folder(target.parent)

    def list(self, prefix: str) -> "list[str]":
        folder = self.root / prefix.rpartition("/")[0]
        with self._explained("read"):
            if not folder.is_dir():
                return []
            paths = [Path(base) / name for base, _, names in os.walk(folder, onerror=_raise) for name in names]
        keys = (path.relative_to(self.root).as_posix() for path in paths)
        return sorted(key for key in keys if key.startswith(prefix) and not key.startswith("."))

    def sizes(self, prefix: str) -> dict[str, int]:
        found = {}
        with self._explained("read"):
            for key in self.list(prefix):
                # Somebody may have deleted it since it was listed.
                with contextlib.suppress(FileNotFoundError):
                    found[key] = (self.root / key).stat().st_size
        return found

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._explained("write"), self._locked():
            if path.exists():
                path.unlink()
                sync_folder(path.parent)

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _read_pieces(self, file: BinaryIO) -> Iterator[bytes]:
        with file, self._explained("read"):
            while piece := file.read(PIECE_BYTES):
                yield piece

    def _write(self, path: Path, data: bytes) -> None:
        # One name for every unfinished write: the lock's holder is the only writer,
        # so whatever a killed one left there is overwritten by the next.
        incoming = self.root / INCOMING
        with incoming.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        incoming.replace(path)
        sync_folder(path.parent)

    def _make_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            self._make_folder(folder.parent)
            folder.mkdir(exist_ok=True)
            sync_folder(folder.parent)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _explained(self, verb: str) -> Iterator[None]:
        try:
            with explained(self.root):
                yield
        except StoreDenied as error:
            raise StoreDenied(
                f"no permission to {verb} in the store folder {self.root}",
                hint="give this user access to that folder, or set SAEOPS_STORE to another one",
            ) from error
        except OSError as error:
            raise StoreUnreachable(
                f"the store folder {self.root} does not answer: {error.strerror or error}",
                hint="check SAEOPS_STORE and that its disk is mounted; `saeops doctor` looks at both",
            ) from error


class MemoryStore:
    """An object store that lives as long as the process: the fake of every other."""

    def __init__(self) -> None:
        self.address = "memory"
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> Found | None:
        data = self._objects.get(check_key(key))
        return None if data is None else Found(data, digest_bytes(data))

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str | None:
        with self._lock:
            current = self.get(key)
            if if_absent and current is not None:
                return None
            if if_match is not None and (current is None or current.etag != if_match):
                return None
            self._objects[key] = bytes(data)
        return digest_bytes(data)

    def pieces(self, key: str) -> Iterator[bytes] | None:
        found = self.get(key)
        return None if found is None else iter([found.data])

    def put_file(self, key: str, path: Path, sha256: str) -> None:
        data = path.read_bytes()
        if digest_bytes(data) != sha256:
            raise not_that_file(path)
        self.put(key, data)

    def list(self, prefix: str) -> "list[str]":
        return sorted(key for key in self._objects if key.startswith(prefix))

    def sizes(self, prefix: str) -> dict[str, int]:
        return {key: len(self._objects[key]) for key in self.list(prefix)}

    def delete(self, key: str) -> None:
        self._objects.pop(check_key(key), None)


def not_that_file(path: Path) -> FolderDamaged:
    return FolderDamaged(
        f"{path}: changed since it was sealed",
        hint="nothing was put into the store; restore the file, or build again",
    )


@contextlib.contextmanager
def _only_writer(path: Path) -> Iterator[BinaryIO]:
    """An empty file that nobody else writes until it is renamed; what a killed writer left in it is gone.

    Large files do not hold the store's own lock, lest a rollback wait for an upload.
    """
    while True:
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file, path):
                continue  # the one we waited for renamed it
            file.truncate(0)
            try:
                yield file
            except BaseException:
                if _is_at(file, path):
                    path.unlink()
                raise
            return


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _copy(path: Path, incoming: BinaryIO, sha256: str) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            incoming.write(piece)
    if digest.hexdigest() != sha256:
        raise not_that_file(path)
    incoming.flush()
    os.fsync(incoming.fileno())


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        return None


def _etag(path: Path) -> str | None:
    data = _read(path)
    return None if data is None else digest_bytes(data)


def _raise(error: OSError) -> None:
    if error.errno != errno.ENOENT:
        raise error
