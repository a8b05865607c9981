"""The catalog's tables: docs/formats/catalog.md."""

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.typing.pandas import Series

KIND = "catalog"
VERSION = 2
LATENTS = "latents.parquet"
CONTEXTS = "contexts.parquet"


class LatentTable(pa.DataFrameModel):
    """One row a latent, dead ones included, measured on the explain split."""

    latent: Series[pa.Int32] = pa.Field(ge=0, unique=True)
    density: Series[pa.Float64] = pa.Field(ge=0, le=1)
    """Share of tokens it fires on."""
    n_active: Series[pa.Int64] = pa.Field(ge=0)
    """Tokens it fires on."""
    max_activation: Series[pa.Float32] = pa.Field(ge=0)
    mean_activation: Series[pa.Float32] = pa.Field(ge=0)
    """Over the tokens it fires on; 0 where there is none."""
    raised_tokens: Series[object]
    """Tokens whose logits its direction raises most, strongest first."""
    raised_logits: Series[object]
    lowered_tokens: Series[object]
    """Tokens whose logits it lowers most, strongest first."""
    lowered_logits: Series[object]
    neighbours: Series[object]
    """Latents whose decoder directions have the largest cosine with its own, nearest first."""
    neighbour_cosines: Series[object]
    top_token: Series[str]
    """The token it fires on most often among its sampled firings; empty for a dead latent."""

    class Config:
        strict = True


class ContextTable(pa.DataFrameModel):
    """One row a shown context: where a latent fires, and how strongly on each token round it."""

    latent: Series[pa.Int32] = pa.Field(ge=0)
    kind: Series[str] = pa.Field(isin=["top", "quantile"])
    quantile: Series[pa.Int8] = pa.Field(ge=-1)
    """0 the weakest; −1 for a top context."""
    rank: Series[pa.Int16] = pa.Field(ge=0)
    """Within the latent's top contexts, or within its quantile."""
    document: Series[pa.Int32] = pa.Field(ge=0)
    position: Series[pa.Int32] = pa.Field(ge=0)
    """Document position of the token it was chosen for."""
    activation: Series[pa.Float32] = pa.Field(gt=0)
    """Activation on that token."""
    start: Series[pa.Int32] = pa.Field(ge=0)
    """Document position of the first shown token."""
    tokens: Series[object]
    """Token ids shown."""
    activations: Series[object]
    """This latent's activation on each shown token; 0 where it is silent or the token is masked."""

    class Config:
        strict = True

    @pa.dataframe_check
    @classmethod
    def one_activation_a_token(cls, frame: pd.DataFrame) -> "Series[bool]":
        return frame["tokens"].map(len) == frame["activations"].map(len)

    @pa.dataframe_check
    @classmethod
    def its_own_activation_stands_at_its_position(cls, frame: pd.DataFrame) -> "Series[bool]":
        inside = (frame["position"] - frame["start"]).to_numpy()
        shown = zip(frame["activations"], inside, frame["activation"], strict=True)
        fits = [0 <= at < len(values) and np.float32(values[at]) == own for values, at, own in shown]
        return pd.Series(fits, index=frame.index)
