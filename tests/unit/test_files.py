"""Files are whole or absent, and a full disk is told apart from a forbidden one."""

import errno
import os
from pathlib import Path

import pytest

from saeops.errors import DiskFull, StoreDenied
from saeops.files import write_atomic


@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, DiskFull), (errno.EACCES, StoreDenied)])
def test_a_failed_write_leaves_the_old_bytes_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def refuse(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(error, match="file"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


def test_a_file_within_a_file_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        write_atomic(tmp_path / "plain" / "x", b"")
