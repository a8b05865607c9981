"""The label table, `labels.parquet` of the sealed labels folder: docs/formats/labels.md."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pandera.pandas as pa
from pandera.typing.pandas import Series

from saeops.labelling.labels import Label, Outcome
from saeops.labelling.scoring import Score
from saeops.stats import Interval

KIND = "labels"
VERSION = 1
TABLE = "labels.parquet"
METRICS_FILE = "metrics.json"
MADE_BY = "saeops label"
RATES = ("tpr", "tnr", "fp_hard", "precision")


class LabelTable(pa.DataFrameModel):
    """One row a latent and labeller; of a latent's rows exactly one is chosen."""

    latent: Series[pa.Int32] = pa.Field(ge=0)
    labeller: Series[str] = pa.Field(str_matches="^(pattern|llm:.+)$")
    version: Series[str] = pa.Field(nullable=True, str_matches="^[0-9a-f]{16}$")
    """sha256 of labeller and text, first 16 characters; null without a text."""
    text: Series[str] = pa.Field(nullable=True, str_length={"min_value": 1})
    """Null where no label could be read; `unparsed` says why."""
    rule: Series[str] = pa.Field(nullable=True)
    """JSON: a pattern's slots, or a judge's calibration."""
    unparsed: Series[str] = pa.Field(nullable=True)
    n_positive: Series[pa.Int32] = pa.Field(ge=0)
    n_negative: Series[pa.Int32] = pa.Field(ge=0)
    n_hard: Series[pa.Int32] = pa.Field(ge=0)
    tpr: Series[float] = pa.Field(ge=0, le=1)
    tpr_low: Series[float] = pa.Field(ge=0, le=1)
    tpr_high: Series[float] = pa.Field(ge=0, le=1)
    tnr: Series[float] = pa.Field(ge=0, le=1)
    tnr_low: Series[float] = pa.Field(ge=0, le=1)
    tnr_high: Series[float] = pa.Field(ge=0, le=1)
    fp_hard: Series[float] = pa.Field(ge=0, le=1)
    fp_hard_low: Series[float] = pa.Field(ge=0, le=1)
    fp_hard_high: Series[float] = pa.Field(ge=0, le=1)
    precision: Series[float] = pa.Field(ge=0, le=1)
    precision_low: Series[float] = pa.Field(ge=0, le=1)
    precision_high: Series[float] = pa.Field(ge=0, le=1)
    base_rate: Series[float] = pa.Field(ge=0, le=1)
    parse_failures: Series[pa.Int32] = pa.Field(ge=0)
    asked: Series[pa.Int32] = pa.Field(ge=0)
    """Answers asked for: the label, and one a snippet."""
    confidence: Series[float] = pa.Field(ge=0, le=1)
    chosen: Series[bool]

    class Config:
        strict = True

    @pa.dataframe_check
    @classmethod
    def one_chosen_label_a_latent(cls, frame: pd.DataFrame) -> "Series[bool]":
        return frame.groupby("latent")["chosen"].transform("sum") == 1

    @pa.dataframe_check
    @classmethod
    def a_text_or_a_reason_why_not(cls, frame: pd.DataFrame) -> "Series[bool]":
        named = frame["text"].notna() & frame["version"].notna() & frame["unparsed"].isna()
        failed = frame["text"].isna() & frame["version"].isna() & frame["unparsed"].notna()
        return named | failed


def label_row(latent: int, labeller: str, outcome: Outcome, score: Score) -> dict[str, Any]:
    """One row of the table, not yet chosen."""
    label = outcome if isinstance(outcome, Label) else None
    return {
        "latent": latent,
        "labeller": labeller,
        "version": label.version if label else None,
        "text": label.text if label else None,
        "rule": label.rule if label else None,
        "unparsed": None if isinstance(outcome, Label) else outcome.reason,
        "n_positive": score.tpr.n,
        "n_negative": score.tnr.n,
        "n_hard": score.fp_hard.n,
        **_columns({name: getattr(score, name) for name in RATES}),
        "base_rate": score.base_rate,
        "parse_failures": score.parse_failures,
        "asked": score.asked,
        "confidence": score.confidence,
    }


def _columns(rates: Mapping[str, Interval]) -> dict[str, float | None]:
    columns: dict[str, float | None] = {}
    for name, rate in rates.items():
        columns |= {name: rate.point, f"{name}_low": rate.low, f"{name}_high": rate.high}
    return columns


def label_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The table by latent, one label a latent chosen: the highest confidence, then a text, then the first."""
    frame = pd.DataFrame(rows)
    whole = {"latent", "n_positive", "n_negative", "n_hard", "parse_failures", "asked"}
    texts = {"labeller", "version", "text", "rule", "unparsed"}
    frame = frame.astype(dict.fromkeys(whole, "int32") | dict.fromkeys(texts, "str"))
    frame["has_text"] = frame["text"].notna()
    best = frame.sort_values(["confidence", "has_text"], ascending=False, kind="stable")
    frame["chosen"] = frame.index.isin(best.drop_duplicates("latent").index)
    frame = frame.drop(columns="has_text").sort_values(["latent", "labeller"], kind="stable")
    return frame.reset_index(drop=True)[list(LabelTable.to_schema().columns)]
