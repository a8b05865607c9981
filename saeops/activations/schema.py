"""What an activation set consists of: its tables and its names. Format: docs/formats/activations.md."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandera.pandas as pa
import torch
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

    def origin(self, row: int) -> str:
        """Where a token comes from, for messages."""
        return f"document {int(self.document[row])}, position {int(self.position[row])}"


def take(batch: TokenBatch, chosen: Int[Tensor, " chosen"] | slice) -> TokenBatch:
    """The tokens chosen, in that order."""
    return TokenBatch(
        batch.activations[chosen], batch.document[chosen], batch.position[chosen], batch.token[chosen]
    )


def empty_like(batch: TokenBatch, size: int) -> TokenBatch:
    """Room for `size` tokens such as these."""
    return TokenBatch(
        batch.activations.new_empty(size, batch.activations.shape[1]),
        batch.document.new_empty(size),
        batch.position.new_empty(size),
        batch.token.new_empty(size),
    )


def put(batch: TokenBatch, into: TokenBatch, places: Int[Tensor, " token"]) -> None:
    """Write each token to its place in another batch."""
    into.activations[places] = batch.activations
    into.document[places] = batch.document
    into.position[places] = batch.position
    into.token[places] = batch.token


def in_fp32(batch: TokenBatch) -> TokenBatch:
    """The same tokens with their activations in fp32."""
    return replace(batch, activations=batch.activations.float())


def concatenate(batches: Sequence[TokenBatch]) -> TokenBatch:
    """Several batches as one."""
    return TokenBatch(
        torch.cat([batch.activations for batch in batches]),
        torch.cat([batch.document for batch in batches]),
        torch.cat([batch.position for batch in batches]),
        torch.cat([batch.token for batch in batches]),
    )


def in_order(batch: TokenBatch) -> TokenBatch:
    """The same tokens in order of document and position."""
    order = np.lexsort((batch.position.numpy(), batch.document.numpy()))
    return take(batch, torch.from_numpy(order))


def shard_name(site: str, split: str, shard: int) -> str:
    """Where a shard lies inside the set."""
    return f"{site}/{split}-{shard:05d}.safetensors"
