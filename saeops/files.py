"""Files that are either whole or absent, whenever the process dies."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from saeops.errors import DiskFull, StoreDenied


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn "no space" and "no permission" into errors that say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"no room left while writing {path}",
                hint="free some disk and run the same command again: finished work is kept",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StoreDenied(
                f"no permission to write {path}",
                hint="give this user write access there, or choose another place (see `saeops doctor`)",
            ) from error
        raise


def write_atomic(path: Path, data: bytes) -> None:
    """Write by temporary file, fsync and rename: readers see the old bytes or the new ones.

    Raises:
        DiskFull: no space is left; the old file still stands.
        StoreDenied: this user may not write there.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """fsync a folder, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """fsync one file that somebody else wrote."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_folder(work: Path, target: Path) -> None:
    """Put the finished folder `work` in the place of `target`.

    A kill between the two renames leaves `target` absent and both folders
    whole beside it, and the stage's rerun finds `work` and publishes it again.
    """
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        old = target.with_name(f".{target.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.replace(old)
        work.replace(target)
        sync_folder(target.parent)
        shutil.rmtree(old, ignore_errors=True)
