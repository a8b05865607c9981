"""Signs of life: a file that a flow run holds locked for as long as its process lives.

Prefect's states outlive the process that set them: a killed run stays Running. The
kernel drops a lock with its holder, so that a lock that can be had tells the truth.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def alive(folder: Path, run: str | None) -> Iterator[None]:
    """Hold a run's file while the block runs; nothing to hold without a run, or where it is held already."""
    if run is None:
        yield
        return
    path = folder / run
    with held(path) as ours:
        try:
            yield
        finally:
            if ours:
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def held(path: Path) -> Iterator[bool]:
    """Hold a file while the block runs; yields False, and holds nothing, where somebody else does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def lives(folder: Path, run: str) -> bool:
    """Whether a process of this machine holds the run's file. One that nobody holds is removed."""
    path = folder / run
    try:
        file = path.open("r+")
    except FileNotFoundError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        path.unlink(missing_ok=True)
        return False
