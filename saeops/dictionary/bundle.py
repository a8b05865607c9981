"""The bundle: one immutable folder named by its sha256. Format: docs/formats/bundle.md."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from saeops import sealed
from saeops.dictionary.format import KIND, PARTS, PROVENANCE, REVIEWS, VERSION, check_version
from saeops.dictionary.provenance import Provenance, read_provenance
from saeops.digests import digest_bytes
from saeops.errors import FolderDamaged
from saeops.files import publish_folder, write_atomic
from saeops.review.ledger import LedgerEntry


@dataclass(frozen=True)
class Bundle:
    """A verified bundle folder."""

    path: Path
    digest: str
    inputs: dict[str, Any]

    @property
    def candidate(self) -> str:
        """Digest that its review decisions name: the bundle it was before they were sealed in, or its own."""
        return str(self.inputs.get("reviewed_from", self.digest))

    @cached_property
    def provenance(self) -> Provenance:
        return read_provenance(self.path / PROVENANCE)

    def labels(self) -> pd.DataFrame:
        """labels.parquet as the labellers left it, decisions not applied."""
        return pd.read_parquet(self.path / "labels" / "labels.parquet")

    def carried(self) -> pd.DataFrame | None:
        """What became of an older dictionary's labels; None where it was not asked."""
        path = self.path / "labels" / "carried.parquet"
        return pd.read_parquet(path) if path.exists() else None

    def latents(self) -> pd.DataFrame:
        """The catalog's row a latent."""
        return pd.read_parquet(self.path / "catalog" / "latents.parquet")

    def effects(self) -> pd.DataFrame:
        return pd.read_parquet(self.path / "effects" / "effects.parquet")

    def reviews(self) -> list[LedgerEntry]:
        """The decisions sealed into it."""
        lines = (self.path / REVIEWS).read_text().splitlines()
        try:
            return [LedgerEntry.from_json(json.loads(line)) for line in lines]
        except (ValueError, TypeError, KeyError) as error:
            raise FolderDamaged(
                f"{self.path / REVIEWS} does not hold review decisions", hint="fetch the bundle again"
            ) from error


def open_bundle(folder: Path) -> Bundle:
    """Read every byte of a bundle folder.

    Raises:
        StageMissing: there is no finished bundle.
        FolderDamaged: a file is missing, extra, or changed; names it.
        FormatUnknown: sealed by a newer saeops.
    """
    found = check_version(sealed.verify(folder, kind=KIND, made_by="saeops bundle"))
    return Bundle(found.path, found.digest, dict(found.inputs))


def assemble(
    parts: dict[str, Path], provenance: Provenance, *, summary: dict[str, Any], work: Path, target: Path
) -> Bundle:
    """Copy the sealed parts into a new bundle with no review decisions yet, and publish it.

    Args:
        parts: name in `PARTS` → sealed folder.
        work: unfinished folder of this very bundle; what a killed run left there is replaced.
    """
    shutil.rmtree(work, ignore_errors=True)
    for name in PARTS:
        shutil.copytree(parts[name], work / name)
    write_atomic(work / REVIEWS, b"")
    write_atomic(work / PROVENANCE, provenance.to_bytes())
    sealed.seal(work, kind=KIND, version=VERSION, inputs=bundle_inputs(provenance), summary=summary)
    publish_folder(work, target)
    return open_bundle(target)


def bundle_inputs(provenance: Provenance) -> dict[str, Any]:
    """What determines an unreviewed bundle: its provenance's digest, and its parts'."""
    return {"provenance": digest_bytes(provenance.to_bytes()), **provenance.upstream}


def seal_reviews(bundle: Path, entries: Sequence[LedgerEntry], target: Path) -> Bundle:
    """The same bundle with the decisions on it sealed in, as another bundle at `target`.

    The same candidate and decisions always give the same digest. With no
    decision on it, the copy is the candidate itself, digest and all.

    Args:
        entries: the ledger's, in order; those on other bundles are left out.

    Raises:
        StageMissing, FolderDamaged, FormatUnknown: as `open_bundle`.
    """
    candidate = open_bundle(bundle)
    ours = [entry for entry in entries if entry.decision.bundle == candidate.digest]
    text = "".join(json.dumps(entry.to_json(), sort_keys=True, ensure_ascii=False) + "\n" for entry in ours)
    inputs = {**candidate.inputs, "reviewed_from": candidate.digest, "reviews": digest_bytes(text.encode())}
    if ours and sealed.kept(target, kind=KIND, inputs=inputs):
        return open_bundle(target)
    work = target.with_name(f".{target.name}.work")
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(bundle, work)
    if ours:
        summary = json.loads((work / sealed.MANIFEST).read_bytes())["summary"]
        write_atomic(work / REVIEWS, text.encode())
        sealed.seal(work, kind=KIND, version=VERSION, inputs=inputs, summary={**summary, "decisions": len(ours)})
    publish_folder(work, target)
    return open_bundle(target)
