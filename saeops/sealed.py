"""Sealed folders: what every stage leaves behind.

A sealed folder holds files and a `manifest.json` that names each of them with
size and sha256, the inputs they were made from, and a short summary. The
folder's digest is the sha256 of that manifest. A folder without a manifest is
unfinished; one whose bytes differ from it is refused. Format: docs/formats/sealed-folder.md.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saeops.digests import digest_file, digest_json
from saeops.errors import FolderDamaged, FormatUnknown, StageMissing
from saeops.files import sync_file, write_atomic

MANIFEST = "manifest.json"
SEAL_VERSION = 1


@dataclass(frozen=True)
class Sealed:
    """A sealed folder, as its manifest describes it."""

    path: Path
    kind: str
    """What the folder holds: `activations`, `sae`, `bundle`, …"""
    version: int
    """Version of the kind's own format."""
    inputs: Mapping[str, Any]
    """Everything that determines the content: params and digests of what it was made from."""
    summary: Mapping[str, Any]
    """A few facts about the content, readable without opening it."""
    files: Mapping[str, Mapping[str, Any]]
    """Relative path → `{"bytes": size, "sha256": hexadecimal}`."""
    digest: str
    """sha256 of the manifest without this field."""


def _listing(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST)


def seal(
    folder: Path, *, kind: str, version: int, inputs: Mapping[str, Any], summary: Mapping[str, Any]
) -> Sealed:
    """Write the manifest last, after every file has reached the disk."""
    files: dict[str, dict[str, Any]] = {}
    for path in _listing(folder):
        sync_file(path)
        name = path.relative_to(folder).as_posix()
        files[name] = {"bytes": path.stat().st_size, "sha256": digest_file(path)}
    manifest: dict[str, Any] = {
        "seal": SEAL_VERSION,
        "kind": kind,
        "version": version,
        "inputs": json.loads(json.dumps(inputs)),
        "summary": json.loads(json.dumps(summary)),
        "files": files,
    }
    manifest["digest"] = digest_json(manifest)
    write_atomic(folder / MANIFEST, _rendered(manifest))
    return open_sealed(folder, kind=kind)


def _rendered(manifest: Mapping[str, Any]) -> bytes:
    return json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n"


def parse_manifest(data: bytes, folder: Path, *, kind: str) -> Sealed:
    """Read a manifest's bytes, checking that they are those that were sealed, to the last white space.

    Raises:
        FolderDamaged: not JSON, an edited field, or another kind of folder.
        FormatUnknown: sealed by a newer saeops.
    """
    rebuild = f"remove {folder} and run its stage again; for a bundle, fetch it again or roll back"
    try:
        manifest = json.loads(data)
        rendered = _rendered(manifest)
        digest = manifest.pop("digest")
        seal_version = manifest["seal"]
        whole = digest_json(manifest) == digest
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FolderDamaged(f"{folder / MANIFEST} is not a readable manifest", hint=rebuild) from error
    if seal_version != SEAL_VERSION:
        raise FormatUnknown(
            f"{folder} is sealed in version {seal_version}, this saeops reads version {SEAL_VERSION}",
            hint="use the saeops release that wrote it, or build it again",
        )
    if not whole:
        raise FolderDamaged(f"{folder / MANIFEST} was edited: it no longer matches its digest", hint=rebuild)
    if rendered != data:
        raise FolderDamaged(
            f"{folder / MANIFEST} was edited: it says the same, but not in the bytes that were sealed",
            hint=rebuild,
        )
    if manifest["kind"] != kind:
        raise FolderDamaged(f"{folder} holds {manifest['kind']}, not {kind}", hint=rebuild)
    return Sealed(
        path=folder,
        kind=manifest["kind"],
        version=manifest["version"],
        inputs=manifest["inputs"],
        summary=manifest["summary"],
        files=manifest["files"],
        digest=digest,
    )


def open_sealed(folder: Path, *, kind: str, made_by: str = "") -> Sealed:
    """Read a folder's manifest and check names and sizes, not every byte (see `verify`).

    Args:
        made_by: the command that makes such a folder, for the error's hint.

    Raises:
        StageMissing: there is no sealed folder.
        FolderDamaged: a file is missing, extra or of another size.
        FormatUnknown: sealed by a newer saeops.
    """
    try:
        data = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise StageMissing(
            f"no finished {kind} in {folder}",
            hint=f"run `{made_by or 'saeops ' + kind}` first",
        ) from error
    sealed = parse_manifest(data, folder, kind=kind)
    present = {p.relative_to(folder).as_posix(): p.stat().st_size for p in _listing(folder)}
    for name in sorted(present.keys() | sealed.files.keys()):
        expected = sealed.files.get(name, {}).get("bytes")
        if present.get(name) != expected:
            raise FolderDamaged(
                f"{folder / name}: {_difference(expected, present.get(name))}",
                hint=f"remove {folder} and run its stage again; for a bundle, fetch it again or roll back",
            )
    return sealed


def verify(folder: Path, *, kind: str, made_by: str = "") -> Sealed:
    """`open_sealed`, then read every byte.

    Raises:
        FolderDamaged: any byte differs.
    """
    sealed = open_sealed(folder, kind=kind, made_by=made_by)
    for name, entry in sealed.files.items():
        if digest_file(folder / name) != entry["sha256"]:
            raise FolderDamaged(
                f"{folder / name}: its bytes changed since it was sealed",
                hint=f"remove {folder} and run its stage again; for a bundle, fetch it again or roll back",
            )
    return sealed


def kept(folder: Path, *, kind: str, inputs: Mapping[str, Any]) -> Sealed | None:
    """The folder, if it is whole and was made from exactly these inputs; else None.

    A damaged folder made from the same inputs raises, so that nobody's bytes
    are silently replaced.
    """
    try:
        sealed = open_sealed(folder, kind=kind)
    except (StageMissing, FormatUnknown):
        return None
    if sealed.inputs != json.loads(json.dumps(inputs)):
        return None
    return verify(folder, kind=kind)


def _difference(expected: int | None, found: int | None) -> str:
    if found is None:
        return "missing"
    if expected is None:
        return "not in the manifest"
    return f"{found} bytes, sealed with {expected}"
