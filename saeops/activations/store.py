"""Writing shards: one piece of work at a time, each whole or absent, each remembered with its checksum.

Legend: T token, D d_model.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from saeops.activations.schema import DTYPES, TokenBatch, shard_name
from saeops.digests import digest_bytes, digest_file
from saeops.errors import CorpusTooSmall, NonFinite
from saeops.files import write_atomic


@dataclass(frozen=True)
class ShardFacts:
    """What is known of one shard file; a row of ShardTable, and its checksum."""

    site: str
    split: str
    shard: int
    tokens: int
    outliers: int
    dtype: str
    finite: bool
    norm_q05: float
    norm_q50: float
    norm_q95: float
    sha256: str

    @property
    def name(self) -> str:
        return shard_name(self.site, self.split, self.shard)

    def row(self) -> dict[str, Any]:
        """The facts as a row of ShardTable; checksums live in the manifest."""
        return {key: value for key, value in asdict(self).items() if key != "sha256"}


def write_shard(
    folder: Path, site: str, split: str, shard: int, batch: TokenBatch, *, outliers: int, dtype: str
) -> ShardFacts:
    """Write one shard, its activations already `stored_as` its dtype, and give what is known of it.

    Raises:
        CorpusTooSmall: no token is left after the mask.
        DiskFull: no space is left; shards written before stay.
    """
    name = shard_name(site, split, shard)
    if not len(batch):
        raise CorpusTooSmall(f"{name}: no token is left", hint="raise harvest.policy.max_norm_ratio")
    data = save(
        {
            "activations": batch.activations.contiguous(),
            "document": batch.document.to(torch.int32),
            "position": batch.position.to(torch.int32),
            "token": batch.token.to(torch.int32),
        }
    )
    write_atomic(folder / name, data)
    norms_T = batch.activations.float().norm(dim=-1).numpy()
    q05, q50, q95 = (float(q) for q in np.quantile(norms_T, [0.05, 0.5, 0.95]))
    return ShardFacts(
        site, split, shard, len(batch), outliers, dtype, True, q05, q50, q95, sha256=digest_bytes(data)
    )


def stored_as(x_TD: Float[Tensor, "T D"], dtype: str, *, name: str) -> Float[Tensor, "T D"]:
    """Activations in the precision they are stored in, on the CPU.

    Args:
        name: the shard they go to, for the error.

    Raises:
        NonFinite: the activations, or what they become in `dtype`, hold NaN or infinity.
    """
    stored_TD = x_TD.to(to_dtype(dtype)).cpu()
    if bool(torch.isfinite(stored_TD).all()):
        return stored_TD
    bad = int((~torch.isfinite(stored_TD)).any(dim=-1).sum())
    if bool(torch.isfinite(x_TD).all()):
        raise NonFinite(
            f"{name}: {bad} tokens overflow in {dtype} (largest value {float(x_TD.abs().max()):.3g})",
            hint="set harvest.dtype to bfloat16 or float32, or a lower harvest.policy.max_norm_ratio",
        )
    raise NonFinite(
        f"{name}: the model gives NaN or infinity at {bad} tokens",
        hint="set model.dtype to float32, and harvest.dtype to bfloat16 or float32;"
        " if they are, the model's weights are broken",
    )


def to_dtype(name: str) -> torch.dtype:
    """`float16` → torch.float16."""
    assert name in DTYPES
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype


class Pieces:
    """What a work folder has finished: a small JSON file a piece, written after the piece's own files.

    A piece counts only while every file it names still has its checksum.
    """

    def __init__(self, work: Path) -> None:
        self.files = work / "set"
        self._notes = work / "pieces"

    def finish(self, piece: str, checksums: Mapping[str, str], note: Mapping[str, Any]) -> None:
        """Remember a piece whose files (names under `files`) are written."""
        data = json.dumps({"checksums": dict(checksums), "note": dict(note)}, sort_keys=True)
        write_atomic(self._notes / f"{piece}.json", data.encode())

    def finished(self, piece: str) -> dict[str, Any] | None:
        """The piece's note, if it and all its files are whole; else None."""
        path = self._notes / f"{piece}.json"
        try:
            entry = json.loads(path.read_bytes())
            checksums, note = entry["checksums"], entry["note"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        whole = all(
            (self.files / name).is_file() and digest_file(self.files / name) == sha256
            for name, sha256 in checksums.items()
        )
        return dict(note) if whole else None

    def tidy(self) -> None:
        """Remove what a killed write left: temporary files, and a manifest of an unpublished set."""
        leftovers = [*self.files.rglob(".*"), self.files / "manifest.json"]
        for path in leftovers:
            path.unlink(missing_ok=True)
