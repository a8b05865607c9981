"""What an activation set consists of: its tables and its names. Format: docs/formats/activations.md."""

from dataclasses import dataclass

import pandera.pandas as pa
from jaxtyping import Float, Int
from pandera.typing import Series
from torch import Tensor

from saeops.activations.split import SPLITS

KIND = "activations"
VERSION = 1
DOCUMENTS = "documents.parquet"
SHARDS = "shards.parquet"
DTYPES = ("float16", "bfloat16", "float32")


class DocumentTable(pa.DataFrameModel):
    """One row a document that was kept, in corpus order."""

    document: Series[pa.Int32] = pa.Field(ge=0, unique=True)
    source: Series[str]
    split: Series[str] = pa.Field(isin=list(SPLITS))
    sha256: Series[str] = pa.Field(str_matches="^[0-9a-f]{64}$", unique=True)
    n_tokens: Series[pa.Int32] = pa.Field(ge=1)
    tokens: Series[object]
    """Token ids without the prepended one, cut to what was harvested."""

    class Config:
        strict = True


class ShardTable(pa.DataFrameModel):
    """One row a shard file."""

    site: Series[str]
    split: Series[str] = pa.Field(isin=list(SPLITS))
    shard: Series[pa.Int32] = pa.Field(ge=0)
    tokens: Series[pa.Int64] = pa.Field(ge=1)
    outliers: Series[pa.Int64] = pa.Field(ge=0)
    """Tokens left out of this shard because of their norm."""
    dtype: Series[str] = pa.Field(isin=list(DTYPES))
    finite: Series[bool] = pa.Field(eq=True)
    norm_q05: Series[float] = pa.Field(ge=0)
    norm_q50: Series[float] = pa.Field(ge=0)
    norm_q95: Series[float] = pa.Field(ge=0)

    class Config:
        strict = True


@dataclass(frozen=True)
class TokenBatch:
    """Tokens' activations with where each stood."""

    activations: Float[Tensor, "token d_model"]
    document: Int[Tensor, " token"]
    position: Int[Tensor, " token"]
    """Index into the document's tokens."""
    token: Int[Tensor, " token"]

    def __len__(self) -> int:
        return len(self.token)


def shard_name(site: str, split: str, shard: int) -> str:
    """Where a shard lies inside the set."""
    return f"{site}/{split}-{shard:05d}.safetensors"
