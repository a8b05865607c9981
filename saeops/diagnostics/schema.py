"""The tables of diagnostics: docs/formats/diagnostics.md."""

import pandas as pd
import pandera.pandas as pa
from pandera.typing.pandas import Series

KIND = "diagnostics"
VERSION = 2
METRICS_FILE = "metrics.json"
NULLS_FILE = "nulls.json"
DOCUMENTS = "documents.parquet"
LATENTS = "latents.parquet"
SLICES = "slices.parquet"
FIGURES = "figures"


class EvalDocumentTable(pa.DataFrameModel):
    """One row an eval document: sums over its counted tokens, and over its counted predictions.

    x is the activation, x̂ its reconstruction, μ the mean of all evaluated tokens; CE and KL in nats.
    """

    document: Series[pa.Int32] = pa.Field(ge=0, unique=True)
    sha256: Series[str] = pa.Field(str_matches="^[0-9a-f]{64}$", unique=True)
    tokens: Series[pa.Float64] = pa.Field(gt=0)
    values: Series[pa.Float64] = pa.Field(gt=0)
    """tokens × D."""
    error: Series[pa.Float64] = pa.Field(ge=0)
    """Σ ‖x − x̂‖²"""
    spread: Series[pa.Float64] = pa.Field(ge=0)
    """Σ ‖x − μ‖²"""
    square: Series[pa.Float64] = pa.Field(ge=0)
    """Σ ‖x‖²"""
    cosine: Series[pa.Float64]
    """Σ cos(x, x̂)"""
    norm_out: Series[pa.Float64] = pa.Field(ge=0)
    """Σ ‖x̂‖²"""
    dot: Series[pa.Float64]
    """Σ x·x̂"""
    fired: Series[pa.Float64] = pa.Field(ge=0)
    """Σ latents > 0"""
    predictions: Series[pa.Float64] = pa.Field(ge=0)
    """Counted predictions; 0 where the model was not run on the document."""
    ce_clean: Series[pa.Float64]
    ce_spliced: Series[pa.Float64]
    """With the reconstruction in the activations' place."""
    ce_kept: Series[pa.Float64]
    """With reconstruction and error term."""
    ce_zero: Series[pa.Float64]
    ce_mean: Series[pa.Float64]
    kl: Series[pa.Float64]
    """Σ KL(clean ‖ spliced)"""
    agree: Series[pa.Float64] = pa.Field(ge=0)
    """Predictions whose most likely token is the clean one's."""

    class Config:
        strict = True


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
    histogram: Series[object]
    """Tokens by activation, in the bins of docs/formats/diagnostics.md."""
    coherence: Series[pa.Float64] = pa.Field(nullable=True)
    ablation_sparsity: Series[pa.Float64] = pa.Field(nullable=True)
    logit_specificity: Series[pa.Float64] = pa.Field(nullable=True)
    max_cosine: Series[pa.Float64] = pa.Field(nullable=True)
    max_cosine_latent: Series[pd.Int32Dtype] = pa.Field(nullable=True, ge=0)
    """The latent whose decoder row is nearest."""
    seed_cosine: Series[pa.Float64] = pa.Field(nullable=True)

    class Config:
        strict = True


class SliceTable(pa.DataFrameModel):
    """One row a slice of the tokens and metric."""

    slice: Series[str] = pa.Field(isin=["position", "token_frequency"])
    bucket: Series[str]
    """Its name, as people read it."""
    order: Series[pa.Int16] = pa.Field(ge=0)
    """Place among the slice's buckets."""
    metric: Series[str]
    tokens: Series[pa.Int64] = pa.Field(gt=0)
    point: Series[pa.Float64]
    low: Series[pa.Float64] = pa.Field(nullable=True)
    high: Series[pa.Float64] = pa.Field(nullable=True)
    n: Series[pa.Int32] = pa.Field(ge=0)
    """Documents that have tokens in it."""
    note: Series[str]

    class Config:
        strict = True
