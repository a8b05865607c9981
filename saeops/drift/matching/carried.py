"""The table of labels that were carried over or dropped, in the labels folder: docs/formats/labels.md."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pandera.pandas as pa
from pandera.typing.pandas import Series

from saeops.drift.matching.carry import Origin, Remark
from saeops.drift.matching.metrics import CarriedOver

CARRIED = "carried.parquet"


class CarriedTable(pa.DataFrameModel):
    """One row a chosen label of the old dictionary."""

    from_bundle: Series[str] = pa.Field(str_matches="^[0-9a-f]{64}$")
    from_latent: Series[pa.Int32] = pa.Field(ge=0, unique=True)
    labeller: Series[str]
    version: Series[str] = pa.Field(str_matches="^[0-9a-f]{16}$")
    """With `latent`, the row of labels.parquet that it became."""
    text: Series[str]
    old_confidence: Series[pa.Float64] = pa.Field(ge=0, le=1)
    trusted: Series[bool]
    """Consumers of the old dictionary were shown it."""
    outcome: Series[str] = pa.Field(isin=["carried", "dropped"])
    reason: Series[str] = pa.Field(nullable=True)
    """Why it was dropped."""
    latent: Series[pd.Int32Dtype] = pa.Field(nullable=True, ge=0)
    """The matched latent of the new dictionary."""
    match_score: Series[pa.Float64] = pa.Field(nullable=True, ge=-1, le=1)
    match_probability: Series[pa.Float64] = pa.Field(nullable=True, ge=0, le=1)
    rescored: Series[pa.Float64] = pa.Field(nullable=True, ge=0, le=1)
    """Confidence of its test on the new dictionary."""
    confidence: Series[pa.Float64] = pa.Field(nullable=True, ge=0, le=1)
    """match_probability · rescored"""
    history: Series[str]
    """JSON: where it stood, oldest first, this carry-over included."""
    remarks: Series[str]
    """JSON: what reviewers said of it, oldest first."""

    class Config:
        strict = True


def carried_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The table, by old latent; it may have no rows."""
    columns = list(CarriedTable.to_schema().columns)
    frame = pd.DataFrame(rows, columns=columns)
    for column in ("history", "remarks"):
        frame[column] = [json.dumps(each, sort_keys=True, ensure_ascii=False) for each in frame[column]]
    whole = {"from_latent": "int32", "latent": "Int32", "trusted": "bool"}
    texts = dict.fromkeys(
        ("from_bundle", "labeller", "version", "text", "outcome", "reason", "history", "remarks"), "str"
    )
    numbers = ("old_confidence", "match_score", "match_probability", "rescored", "confidence")
    frame = frame.astype(whole | texts | dict.fromkeys(numbers, "float64"))
    return frame.sort_values("from_latent", kind="stable").reset_index(drop=True)


def carried_over(frame: pd.DataFrame) -> CarriedOver:
    """What the carry-over's figures are measured on."""
    stands = frame["outcome"] == "carried"
    return CarriedOver(
        trusted=int(frame["trusted"].sum()),
        kept=int((frame["trusted"] & stands).sum()),
        confidences=frame.loc[stands, "confidence"].tolist(),
    )


def history_of(row: Mapping[str, Any]) -> tuple[Origin, ...]:
    """A row's history."""
    return tuple(Origin(**each) for each in json.loads(row["history"]))


def remarks_of(row: Mapping[str, Any]) -> tuple[Remark, ...]:
    """A row's remarks."""
    return tuple(Remark(**each) for each in json.loads(row["remarks"]))
