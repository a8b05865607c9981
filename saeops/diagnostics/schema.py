"""The table of diagnostics: docs/formats/diagnostics.md."""

import pandera.pandas as pa
from pandera.typing.pandas import Series

KIND = "diagnostics"
VERSION = 1
METRICS_FILE = "metrics.json"
LATENTS = "latents.parquet"
FIGURES = "figures"


class DiagnosedLatentTable(pa.DataFrameModel):
    """One row a latent, measured on the eval split."""

    latent: Series[pa.Int32] = pa.Field(ge=0, unique=True)
    density: Series[pa.Float64] = pa.Field(ge=0, le=1)
    """Share of tokens it fires on."""
    n_active: Series[pa.Int64] = pa.Field(ge=0)
    """Tokens it fires on."""
    dead: Series[pa.Bool]
    """It fires on none."""
    dense: Series[pa.Bool]
    """Its density exceeds `diagnose.dense_above`."""
    max_activation: Series[pa.Float32] = pa.Field(ge=0)

    class Config:
        strict = True
