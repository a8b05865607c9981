"""The tables of an audit: docs/formats/audit.md."""

import pandera.pandas as pa
from pandera.typing.pandas import Series

KIND = "audit"
VERSION = 1
METRICS_FILE = "metrics.json"
NULLS_FILE = "nulls.json"
LATENTS = "latents.parquet"
DOCUMENTS = "documents.parquet"
EFFECTS = "effects.parquet"
EXAMPLES = "examples.json"
FIGURES = "figures"


class AuditLatentTable(pa.DataFrameModel):
    """One row a latent; bounds are 95 %, and null where nothing can be said."""

    latent: Series[pa.Int32] = pa.Field(ge=0, unique=True)
    verdict: Series[str] = pa.Field(isin=["kept", "weakened", "changed", "lost", "too_few"])
    tested: Series[pa.Bool]
    """It fires often enough on the old model."""
    n_old: Series[pa.Int64] = pa.Field(ge=0)
    """Tokens it fires on, old model."""
    n_new: Series[pa.Int64] = pa.Field(ge=0)
    documents_old: Series[pa.Int32] = pa.Field(ge=0)
    """Documents it fires in, old model."""
    density_ratio: Series[pa.Float64] = pa.Field(nullable=True)
    density_ratio_low: Series[pa.Float64] = pa.Field(nullable=True)
    density_ratio_high: Series[pa.Float64] = pa.Field(nullable=True)
    activation_ratio: Series[pa.Float64] = pa.Field(nullable=True)
    activation_ratio_low: Series[pa.Float64] = pa.Field(nullable=True)
    activation_ratio_high: Series[pa.Float64] = pa.Field(nullable=True)
    correlation: Series[pa.Float64] = pa.Field(nullable=True)
    correlation_low: Series[pa.Float64] = pa.Field(nullable=True)
    correlation_high: Series[pa.Float64] = pa.Field(nullable=True)
    permuted_correlation: Series[pa.Float64] = pa.Field(nullable=True)
    """With another latent, drawn at random, on the new side."""
    histogram_distance: Series[pa.Float64] = pa.Field(nullable=True)
    """Octaves between its activations on the old and the new model."""
    histogram_noise: Series[pa.Float64] = pa.Field(nullable=True)
    """Octaves between its activations in one half of the documents and in the other, old model."""
    context_overlap: Series[pa.Float64] = pa.Field(nullable=True)
    """Share of its strongest windows that stay among the strongest."""
    permuted_overlap: Series[pa.Float64] = pa.Field(nullable=True)
    label_confidence_old: Series[pa.Float64] = pa.Field(nullable=True)
    """Its label, judged on the old model's firings in the audited documents."""
    label_confidence_new: Series[pa.Float64] = pa.Field(nullable=True)

    class Config:
        strict = True


class AuditDocumentTable(pa.DataFrameModel):
    """One row a document and model: the sums of diagnostics' documents.parquet that an audit takes."""

    document: Series[pa.Int32] = pa.Field(ge=0)
    model: Series[str] = pa.Field(isin=["old", "new", "random"])
    sha256: Series[str] = pa.Field(str_matches="^[0-9a-f]{64}$")
    tokens: Series[pa.Float64] = pa.Field(ge=0)
    error: Series[pa.Float64] = pa.Field(ge=0)
    spread: Series[pa.Float64] = pa.Field(ge=0)
    fired: Series[pa.Float64] = pa.Field(ge=0)
    predictions: Series[pa.Float64] = pa.Field(ge=0)
    ce_clean: Series[pa.Float64]
    ce_spliced: Series[pa.Float64]
    kl: Series[pa.Float64]

    class Config:
        strict = True


class AuditEffectTable(pa.DataFrameModel):
    """One row a latent and metric whose effect was measured again: new − old, paired by prompt or context."""

    latent: Series[pa.Int32] = pa.Field(ge=0)
    metric: Series[str] = pa.Field(isin=["steer_target_logprob", "ablate_target_logprob"])
    old: Series[pa.Float64]
    new: Series[pa.Float64]
    difference: Series[pa.Float64]
    difference_low: Series[pa.Float64] = pa.Field(nullable=True)
    difference_high: Series[pa.Float64] = pa.Field(nullable=True)
    n: Series[pa.Int32] = pa.Field(ge=0)
    unit: Series[str] = pa.Field(isin=["prompts", "contexts"])

    class Config:
        strict = True
