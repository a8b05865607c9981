"""Provenance: everything that determines a bundle, without time, place, host or commit.

The same params, data and code on another checkout give the same provenance,
and so the same bundle digest. The git commit of a promotion stands in the
journal (docs/decisions/code-digest.md).
"""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from saeops.activations.policy import TokenPolicy
from saeops.config import Frozen
from saeops.digests import digest_file, digest_json
from saeops.errors import FolderDamaged


class Provenance(Frozen):
    """The content of `provenance.json`."""

    name: str
    """The dictionary's name."""
    model: dict[str, Any]
    """Identity of the language model that was read."""
    corpus: dict[str, Any]
    """Identity of the corpus."""
    policy: TokenPolicy
    """Which token positions count."""
    params: dict[str, Any]
    """Every param in force."""
    code: str
    """sha256 over the sources of saeops."""
    version: str
    """Version of saeops."""
    lock: str | None
    """sha256 of requirements.lock; None where the checkout has none."""
    activations_md5: str
    """What DVC calls the activation set's folder."""
    upstream: dict[str, str]
    """Sealed folder → its digest: what the bundle was made from."""

    def to_bytes(self) -> bytes:
        """Equal values give equal bytes."""
        text = json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False)
        return text.encode() + b"\n"


def read_provenance(path: Path) -> Provenance:
    """Read `provenance.json`.

    Raises:
        FolderDamaged: it is absent or not what it should be.
    """
    try:
        return Provenance.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise FolderDamaged(
            f"{path} is not a readable provenance", hint="fetch the bundle again, or roll back"
        ) from error


SOURCES = {".py", ".cpp", ".h"}


def code_digest(package: Path) -> str:
    """sha256 over the names and bytes of a package's sources, Python and C++."""
    sources = sorted(path for path in package.rglob("*") if path.suffix in SOURCES and path.is_file())
    return digest_json({path.relative_to(package).as_posix(): digest_file(path) for path in sources})


def lock_digest(root: Path) -> str | None:
    """sha256 of the checkout's requirements.lock; None where it has none."""
    lock = root / "requirements.lock"
    return digest_file(lock) if lock.is_file() else None
