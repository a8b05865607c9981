"""The bench's table: docs/formats/effects.md."""

import pandera.pandas as pa
from pandera.typing.pandas import Series

KIND = "effects"
VERSION = 1
EFFECTS = "effects.parquet"
METRICS = "metrics.json"


class EffectTable(pa.DataFrameModel):
    """One row a latent, kind of intervention, strength and metric."""

    latent: Series[pa.Int32] = pa.Field(ge=0)
    drawn: Series[str] = pa.Field(isin=["confidence", "random"])
    """Why it was tested: among the best labelled, or drawn at random."""
    kind: Series[str] = pa.Field(isin=["ablate", "steer"])
    strength: Series[pa.Float64] = pa.Field(ge=0)
    """In units of the latent's maximum activation; 0 for ablation and for figures over all strengths."""
    metric: Series[str]
    """What was measured: see docs/formats/effects.md."""
    point: Series[pa.Float64]
    low: Series[pa.Float64] = pa.Field(nullable=True)
    high: Series[pa.Float64] = pa.Field(nullable=True)
    control_point: Series[pa.Float64]
    """The same for equal-norm random directions, their mean."""
    control_low: Series[pa.Float64] = pa.Field(nullable=True)
    control_high: Series[pa.Float64] = pa.Field(nullable=True)
    difference_point: Series[pa.Float64]
    """Effect − control, paired by unit."""
    difference_low: Series[pa.Float64] = pa.Field(nullable=True)
    difference_high: Series[pa.Float64] = pa.Field(nullable=True)
    n: Series[pa.Int32] = pa.Field(ge=0)
    """Units: prompts, contexts or documents."""
    unit: Series[str] = pa.Field(isin=["prompts", "contexts", "documents"])

    class Config:
        strict = True
