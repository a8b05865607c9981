"""Figures of what was measured. Each is a figure of its own: matplotlib's global state stays untouched.

# F latent, B bin, W position in a window
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from saeops.diagnostics.sparsity import BIN_EDGES, Firing
from saeops.files import write_atomic
from saeops.stats import Interval, rule_of_three

Array = np.ndarray

BLUE, RED, AMBER, INK, FAINT = "#2f6f9f", "#b3392f", "#c98a1b", "#222831", "#d7dce2"


def save_png(figure: Figure, path: Path) -> None:
    """Write a PNG: equal figures give equal bytes on one machine."""
    buffer = io.BytesIO()
    # matplotlib would write its own version into the file.
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    write_atomic(path, buffer.getvalue())


def density_figure(firing: Firing, *, dense_above: float) -> Figure:
    """How many latents fire how often, on a log axis, with the silent ones named."""
    figure, axes = _canvas(
        f"How often latents fire: {len(firing.density_F):,} latents on {firing.tokens:,} held-out tokens",
        x="share of tokens (log scale)",
        y="latents",
    )
    alive = firing.density_F[firing.density_F > 0]
    lowest = np.floor(np.log10(1 / max(firing.tokens, 1)))
    axes.hist(alive, bins=np.logspace(lowest, 0, 49).tolist(), color=BLUE, edgecolor="white", linewidth=0.4)
    axes.set_xscale("log")
    axes.set_xlim(10**lowest, 1)
    _line(axes, dense_above, RED, f"dense above {dense_above:g}: {(alive > dense_above).sum():,}")
    silent = len(firing.density_F) - len(alive)
    bound = rule_of_three(firing.tokens)
    _line(axes, bound, AMBER, f"silent: {silent:,}, each below {bound:.1g} (95 %)")
    axes.set_ylim(top=1.25 * axes.get_ylim()[1])
    _legend(axes, "upper left")
    return figure


def l0_figure(firing: Firing, l0: Interval) -> Figure:
    """How many latents fire on a token, with mean and tail."""
    tokens_L = np.asarray(firing.l0_UL.sum(axis=0))
    used = np.flatnonzero(tokens_L)
    figure, axes = _canvas("Latents that fire on a token", x="latents per token", y="share of tokens")
    low, high = int(used.min()), int(used.max())
    step = max(1, (high - low) // 60)
    edges = np.arange(low, high + step + 1, step) - 0.5
    shares = tokens_L[used] / tokens_L.sum()
    axes.hist(used, bins=edges.tolist(), weights=shares, color=BLUE, edgecolor="white", linewidth=0.4)
    axes.set_xlim(edges[0] - 2, edges[-1] + 2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    _line(axes, l0.point, INK, f"mean {l0.point:.1f}")
    tail = float(used[(tokens_L[used].cumsum() / tokens_L.sum() >= 0.95).argmax()])
    _line(axes, tail, AMBER, f"95 % of tokens up to {tail:.0f}", style=":")
    _legend(axes, "upper left")
    return figure


def activation_figure(firing: Firing, latents: Sequence[int]) -> Figure:
    """How strongly some latents fire: one small histogram each, on a shared log axis."""
    columns, rows = 4, max(1, -(-len(latents) // 4))
    figure = Figure(figsize=(9, 1.2 + 1.6 * rows), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(f"How strongly {len(latents)} latents drawn at random fire", fontsize=12, color=INK)
    figure.supxlabel("activation (log scale)", fontsize=10, color=INK)
    figure.supylabel("tokens", fontsize=10, color=INK)
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
    used = np.flatnonzero(firing.histogram_FB[list(latents)].sum(axis=0))
    for place, axes in enumerate(grid.flat):
        if place >= len(latents):
            axes.set_axis_off()
            continue
        _activations(axes, firing.histogram_FB[latents[place]], latents[place])
        axes.set_xlim(BIN_EDGES[used.min()] / 1.5, BIN_EDGES[used.max() + 1] * 1.5)
    return figure


def position_figure(explained_W: Float[Array, " W"], mean: Interval) -> Figure:
    """Explained variance along the window: early positions are often the hard ones."""
    figure, axes = _canvas(
        "Explained variance along the window", x="position in the window", y="explained variance"
    )
    shown = np.flatnonzero(np.isfinite(explained_W))
    axes.plot(shown, explained_W[shown], color=BLUE, linewidth=1.4)
    axes.axhline(mean.point, color=INK, linewidth=1, linestyle="--", label=f"all positions: {mean.point:.3f}")
    if mean.low is not None and mean.high is not None:
        axes.axhspan(mean.low, mean.high, color=FAINT, alpha=0.8, zorder=0, label="95 % interval over documents")
    axes.set_ylim(min(0.0, float(explained_W[shown].min(initial=0.0))), 1)
    _legend(axes, "lower right")
    return figure


def _activations(axes: Axes, histogram_B: Int[Array, " B"], latent: int) -> None:
    axes.bar(BIN_EDGES[:-1], histogram_B, width=np.diff(BIN_EDGES), align="edge", color=BLUE)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(f"latent {latent:,} · {histogram_B.sum():,} tokens", fontsize=8.5, color=INK)
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    _plain(axes, size=8)


def _canvas(title: str, *, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.5, 4.2), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_title(title, fontsize=12, color=INK, loc="left", pad=10)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    _plain(axes, size=9)
    return figure, axes


def _plain(axes: Axes, *, size: float) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=size, colors=INK)
    axes.grid(axis="y", color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)


def _line(axes: Axes, x: float, colour: str, label: str, style: str = "--") -> None:
    axes.axvline(x, color=colour, linewidth=1.3, linestyle=style, label=label)


def _legend(axes: Axes, place: Literal["upper left", "lower right"]) -> None:
    axes.legend(loc=place, fontsize=9, labelcolor=INK, framealpha=0.92, edgecolor="none")
