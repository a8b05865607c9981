"""Digests: how anything here gets a name that depends on its bytes alone."""

import hashlib
import json
from pathlib import Path
from typing import Any


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys, no spaces and no NaN: equal values give equal bytes.

    Raises:
        ValueError: the value holds NaN or infinity.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def digest_json(value: Any) -> str:
    """sha256 of `canonical_json(value)`, in hexadecimal."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def digest_bytes(data: bytes) -> str:
    """sha256 of `data`, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path, algorithm: str = "sha256") -> str:
    """Digest of a file's bytes, in hexadecimal, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def dvc_directory_md5(folder: Path) -> str:
    """The name DVC gives to a folder: md5 over its sorted list of file md5s, plus `.dir`.

    Computed here so that a bundle's provenance can name the activation set as
    DVC will, whether or not DVC has seen it yet. Source: DVC 3's `dvc.lock`,
    with which a test compares.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    entries = [{"md5": digest_file(path, "md5"), "relpath": path.relative_to(folder).as_posix()} for path in files]
    entries.sort(key=lambda entry: entry["relpath"])
    listing = json.dumps(entries, sort_keys=True).encode()
    return hashlib.md5(listing, usedforsecurity=False).hexdigest() + ".dir"
