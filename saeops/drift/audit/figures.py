"""Figures of an audit. Each is a figure of its own: matplotlib's global state stays untouched."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from saeops.diagnostics.figures import AMBER, BLUE, FAINT, INK, RED

COLOURS = {"kept": BLUE, "too_few": "#9aa3ad", "weakened": AMBER, "changed": RED, "lost": INK}


def correlation_figure(latents: pd.DataFrame) -> Figure:
    """Correlation of each tested latent with itself on the new model, beside that with another latent."""
    tested = latents[latents["tested"]]
    figure, axes = _canvas(
        f"Latents on the same tokens under both models: {len(tested):,} that fire often enough",
        x="correlation of activations",
        y="latents",
    )
    bins = np.linspace(-0.1, 1, 56).tolist()
    shown = {"with itself": ("correlation", BLUE), "with another (null)": ("permuted_correlation", AMBER)}
    for label, (column, colour) in shown.items():
        values = np.clip(tested[column].dropna().to_numpy(dtype=np.float64), -0.1, 1)
        axes.hist(
            values.tolist(), bins=bins, color=colour, alpha=0.75, label=label, edgecolor="white", linewidth=0.4
        )
    axes.set_yscale("symlog", linthresh=10)
    axes.legend(fontsize=9, labelcolor=INK, framealpha=0.92, edgecolor="none")
    return figure


def ratio_figure(latents: pd.DataFrame) -> Figure:
    """How much more or less each tested latent is active, by how often it fired, in the colour of its verdict."""
    tested = latents[latents["tested"]]
    figure, axes = _canvas(
        "Activation on the new model as a multiple of the old",
        x="tokens on which the latent fires, old model (log scale)",
        y="activation ratio (log scale)",
    )
    for verdict, colour in COLOURS.items():
        rows = tested[tested["verdict"] == verdict]
        if rows.empty:
            continue
        # A latent that never fires any more has no ratio on a log scale: it stands at the lower edge.
        ratio = np.clip(rows["activation_ratio"].fillna(1.0).to_numpy(dtype=np.float64), 2.0**-6, 2.0**6)
        label = f"{verdict.replace('_', ' ')}: {len(rows):,}"
        axes.scatter(rows["n_old"], ratio, s=9, color=colour, alpha=0.6, label=label, linewidths=0)
    axes.set_xscale("log")
    axes.set_yscale("log", base=2)
    axes.set_ylim(2.0**-6.3, 2.0**6.3)
    axes.axhline(1.0, color=INK, linewidth=0.8)
    if len(tested):
        axes.legend(loc="upper right", fontsize=9, labelcolor=INK, framealpha=0.92, edgecolor="none")
    return figure


def _canvas(title: str, *, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.5, 4.2), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_title(title, fontsize=12, color=INK, loc="left", pad=10)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9, colors=INK)
    axes.grid(axis="y", color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes
