"""The tables of a matching: docs/formats/match.md."""

from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.typing.pandas import Series

from saeops.drift.matching.kinds import KINDS, Group
from saeops.drift.matching.match import Matching

KIND = "match"
VERSION = 1
TABLE = "latents.parquet"
METRICS_FILE = "metrics.json"
FIGURE = "scores.png"
MADE_BY = "saeops match"


class MatchTable(pa.DataFrameModel):
    """One row a living latent of either dictionary."""

    side: Series[str] = pa.Field(isin=["A", "B"])
    latent: Series[pa.Int32] = pa.Field(ge=0)
    kind: Series[str] = pa.Field(isin=KINDS)
    partner: Series[pd.Int32Dtype] = pa.Field(nullable=True, ge=0)
    """The latent of the other side that it is assigned to, whatever its kind."""
    score: Series[pa.Float64] = pa.Field(nullable=True, ge=-1, le=1)
    """Of latent and partner."""
    cosine: Series[pa.Float64] = pa.Field(nullable=True, ge=-1, le=1)
    correlation: Series[pa.Float64] = pa.Field(nullable=True, ge=-1, le=1)
    """Null where activations were not compared."""
    margin: Series[pa.Float64] = pa.Field(nullable=True)
    """Score − the best score with any other latent of B; of A's rows."""
    nearest: Series[pa.Int32] = pa.Field(ge=0)
    """The latent of the other side of the best score, whoever else has it."""
    nearest_score: Series[pa.Float64] = pa.Field(ge=-1, le=1)
    null_share: Series[pa.Float64] = pa.Field(nullable=True, ge=0, le=1)
    """Share of the permuted null's best scores that are as high; Wilson, 95 %."""
    null_low: Series[pa.Float64] = pa.Field(nullable=True, ge=0, le=1)
    null_high: Series[pa.Float64] = pa.Field(nullable=True, ge=0, le=1)
    seed_share: Series[pa.Float64] = pa.Field(nullable=True, ge=0, le=1)
    """Share of latents whose partner in another seed is no nearer; Wilson, 95 %."""
    seed_low: Series[pa.Float64] = pa.Field(nullable=True, ge=0, le=1)
    seed_high: Series[pa.Float64] = pa.Field(nullable=True, ge=0, le=1)
    whole: Series[pd.Int32Dtype] = pa.Field(nullable=True, ge=0)
    """The latent of the other side that this one is a part of."""
    parts: Series[object]
    """Latents of the other side that make this one up; empty where it is no whole."""
    explained: Series[pa.Float64] = pa.Field(nullable=True, ge=0, le=1)
    """R² of a whole by its parts."""

    class Config:
        strict = True


def match_frame(found: Matching) -> pd.DataFrame:
    """The table: A's latents in order, then B's."""
    rows, columns = found.row_P, found.column_P
    ours, theirs = found.first.latent, found.second.latent
    shares = _shares(found, found.found.score_F[rows])
    nearest = found.found.of_rows
    # Against the runner-up where the partner is the nearest, against the nearest where it is not.
    rival = np.where(nearest.index_F == found.found.column_F, found.found.next_F, nearest.score_F)[rows]
    first = pd.DataFrame({"side": "A", "latent": ours, "kind": found.kinds.first_F})
    second = pd.DataFrame({"side": "B", "latent": theirs, "kind": found.kinds.second_G})
    paired = {"score": found.found.score_F[rows], "cosine": found.pairs.cosine_P, **shares}
    if found.pairs.correlation_P is not None:
        paired["correlation"] = found.pairs.correlation_P
    first = _with_pairs(first, rows, {"partner": theirs[columns], **paired})
    first = _with_pairs(first, rows, {"margin": found.found.score_F[rows] - rival})
    second = _with_pairs(second, columns, {"partner": ours[rows], **paired})
    first["nearest"], first["nearest_score"] = theirs[nearest.index_F], nearest.score_F
    back = found.found.of_columns
    second["nearest"], second["nearest_score"] = ours[back.index_F], back.score_F
    for frame in (first, second):
        frame["whole"], frame["explained"] = np.nan, np.nan
        frame["parts"] = [[] for _ in range(len(frame))]
    _groups(first, second, found.kinds.splits, ours, theirs)
    _groups(second, first, found.kinds.merges, theirs, ours)
    return _typed(pd.concat([first, second], ignore_index=True))


def _shares(found: Matching, score_P: np.ndarray) -> dict[str, np.ndarray]:
    null = found.null.at_least(score_P)
    shares = {"null_share": null.point_P, "null_low": null.low_P, "null_high": null.high_P}
    if found.seeds is not None:
        seeds = found.seeds.at_most(score_P)
        shares |= {"seed_share": seeds.point_P, "seed_low": seeds.low_P, "seed_high": seeds.high_P}
    return shares


def _with_pairs(frame: pd.DataFrame, places: np.ndarray, columns: dict[str, Any]) -> pd.DataFrame:
    return frame.join(pd.DataFrame(columns, index=places))


def _groups(
    whole: pd.DataFrame, part: pd.DataFrame, groups: tuple[Group, ...], mine: np.ndarray, theirs: np.ndarray
) -> None:
    parts: list[list[int]] = list(whole["parts"])
    for group in groups:
        parts[group.whole] = [int(theirs[place]) for place in group.parts]
        whole.loc[group.whole, "explained"] = group.explained
        part.loc[list(group.parts), "whole"] = int(mine[group.whole])
    whole["parts"] = parts


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    for column in MatchTable.to_schema().columns:
        if column not in frame:
            frame[column] = np.nan
    whole = {"latent": "int32", "nearest": "int32", "partner": "Int32", "whole": "Int32"}
    texts = {"side": "str", "kind": "str"}
    frame = frame.astype(whole | texts)
    # Rounding may leave the range.
    for column in ("score", "cosine", "correlation", "nearest_score", "explained"):
        frame[column] = frame[column].astype("float64").clip(-1, 1)
    return frame[list(MatchTable.to_schema().columns)]
