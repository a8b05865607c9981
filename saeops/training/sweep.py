"""What a sweep is told by: one row an SAE, measured on held-out documents, and a figure."""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import pandera.pandas as pa
from pandera.typing import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#2f6f9f", "#b3392f", "#c98a1b", "#4b8b5a", "#7a5aa6", "#222831")


class SweepTable(pa.DataFrameModel):
    """sweep.parquet: one row an SAE, in the order of `train.sweep`."""

    name: Series[str] = pa.Field(unique=True)
    """Its folder."""
    choices: Series[str]
    """What it changes in `train`, as JSON."""
    variant: Series[str]
    k: Series[pd.Int64Dtype] = pa.Field(nullable=True, ge=1)
    d_sae: Series[int] = pa.Field(ge=1)
    seed: Series[int] = pa.Field(ge=0)
    explained_variance: Series[float] = pa.Field(le=1)
    explained_variance_low: Series[float] = pa.Field(nullable=True, le=1)
    explained_variance_high: Series[float] = pa.Field(nullable=True, le=1)
    documents: Series[int] = pa.Field(ge=1)
    """Held-out documents, from which the interval is drawn."""
    l0: Series[float] = pa.Field(ge=0)
    dead_fraction: Series[float] = pa.Field(ge=0, le=1)
    """Latents that fire on no held-out token."""
    digest: Series[str] = pa.Field(str_length=64)
    """Of its folder."""

    class Config:
        strict = True


def sweep_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a table that fits SweepTable."""
    bounds = ("explained_variance_low", "explained_variance_high")
    return pd.DataFrame(rows).astype({"k": "Int64"} | dict.fromkeys(bounds, "float64"))


def sweep_figure(frame: pd.DataFrame) -> "Figure":
    """Held-out explained variance over L0 and over d_sae, one line a variant."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.4), layout="constrained", facecolor="white")
    over_l0, over_width = figure.subplots(1, 2, sharey=True)
    _panel(over_l0, frame, by="l0", fixed="d_sae", label="L0 (latents that fire on a token)")
    _panel(over_width, frame, by="d_sae", fixed="k", label="d_sae (latents)")
    over_l0.set_ylabel("explained variance, held-out documents")
    over_l0.legend(fontsize=9, framealpha=0.92, edgecolor="none")
    return figure


def _panel(axes: "Axes", frame: pd.DataFrame, *, by: str, fixed: str, label: str) -> None:
    """One line for rows of one variant that agree in `fixed`, so that a line means one change."""
    colours = dict(zip(frame["variant"].unique(), itertools.cycle(COLOURS), strict=False))
    shown: set[str] = set()
    for (variant, _), rows in frame.groupby(["variant", fixed], sort=False, dropna=False):
        ordered = rows.sort_values(by)
        if by == "d_sae" and ordered[by].nunique() == 1:
            continue
        points = ordered["explained_variance"]
        # Without an interval there is a point and no bar.
        below = (points - ordered["explained_variance_low"].fillna(points)).clip(lower=0)
        above = (ordered["explained_variance_high"].fillna(points) - points).clip(lower=0)
        axes.errorbar(
            ordered[by],
            points,
            yerr=[below, above],
            color=colours[variant],
            marker="o",
            markersize=4,
            linewidth=1.3,
            capsize=2,
            label="_" if variant in shown else str(variant),
        )
        shown.add(str(variant))
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:.2g}")
    if by == "d_sae":
        axes.set_xticks(sorted(frame[by].unique()))
    axes.set_xlabel(label)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
