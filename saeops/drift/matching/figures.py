"""Scores beside their nulls, drawn. The figure is one of its own: matplotlib's global state stays untouched."""

import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from saeops.drift.matching.match import Matching

Array = np.ndarray

BLUE, RED, AMBER, INK, FAINT = "#2f6f9f", "#b3392f", "#c98a1b", "#222831", "#d7dce2"
BINS = 60


def score_figure(found: Matching, *, matched: float) -> Figure:
    """Scores of the assigned pairs, of the permuted null, and of pairs of another seed, as shares of each."""
    figure = Figure(figsize=(7.5, 4.2), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    pairs = found.found.score_F[found.row_P]
    drawn: list[tuple[str, Float[Array, " N"], str]] = [("permuted B", found.null.score_N, RED)]
    if found.seeds is not None:
        drawn.append(("another seed", found.seeds.score_N[found.seeds.score_N > -1], AMBER))
    edges = np.linspace(min([0.0, *(values.min(initial=0.0) for _, values, _ in drawn)]), 1, BINS + 1)
    axes.hist(
        pairs, bins=edges.tolist(), weights=_shares(pairs), color=BLUE, alpha=0.85, label=_named("A and B", pairs)
    )
    for name, values, colour in drawn:
        axes.hist(
            values,
            bins=edges.tolist(),
            weights=_shares(values),
            label=_named(name, values),
            histtype="step",
            color=colour,
            linewidth=1.6,
        )
    axes.axvline(matched, color=INK, linewidth=1.2, linestyle="--", label=f"matched from {matched:g}")
    what = "cosine and correlation" if found.with_activations else "decoder cosine"
    axes.set_title(f"How alike assigned latents are: {what}", fontsize=12, color=INK, loc="left", pad=10)
    axes.set_xlabel("score", color=INK)
    axes.set_ylabel("share of pairs", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9, colors=INK)
    axes.grid(axis="y", color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.legend(loc="upper left", fontsize=9, labelcolor=INK, framealpha=0.92, edgecolor="none")
    return figure


def _shares(values: Float[Array, " N"]) -> Float[Array, " N"]:
    return np.full(len(values), 1 / max(len(values), 1))


def _named(name: str, values: Float[Array, " N"]) -> str:
    return f"{name}: {len(values):,}"
