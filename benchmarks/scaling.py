"""How the loss falls with the dictionary's size and the tokens: L(F, T) = c + a·F^−α + b·T^−β on real activations.

    python -m benchmarks.scaling --activations artifacts/activations --json scaling.json

Every point is a run of its own with its own schedule: a loss read in the middle of a longer run, before its
learning rate has fallen, would lie too high. The form is that of Hoffmann et al. (2022, arXiv 2203.15556) with
latents in place of parameters; Gao et al. (2024, arXiv 2406.04093, section 3) fit a like one for SAEs. Finished
runs are kept. Runs in the project's own environment.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.optimize import OptimizeWarning, curve_fit

from benchmarks import losses, machine
from benchmarks.data import open_tokens
from benchmarks.environment import CHECKOUT
from benchmarks.recipe import Problem, Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = CHECKOUT / ".cache" / "benchmarks" / "scaling"
FIGURE = CHECKOUT / "docs" / "figures" / "scaling.png"
NAMES = ("c", "a", "alpha", "b", "beta")
UNIT_F, UNIT_T = 1000.0, 1e6
"""a and b are given for F in thousands and T in millions, where all five numbers are near 1."""


@dataclass(frozen=True)
class Point:
    """One trained SAE."""

    d_sae: int
    tokens: int
    seed: int
    fvu: float


@dataclass(frozen=True)
class Law:
    """c + a·(F/1000)^−α + b·(T/10⁶)^−β, with 95 % intervals."""

    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    """Bootstrap over runs; empty where no draw could be fitted."""
    residual: float
    """Root of the mean squared relative difference between the points and the law."""
    runs: int

    def at(self, d_sae: float, tokens: float) -> float:
        return float(law(np.array([[d_sae], [tokens]]), *(self.values[name] for name in NAMES))[0])

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def law(inputs: np.ndarray, c: float, a: float, alpha: float, b: float, beta: float) -> np.ndarray:
    """The form; `inputs` holds F and T as rows."""
    size, tokens = inputs
    return np.asarray(c + a * (size / UNIT_F) ** -alpha + b * (tokens / UNIT_T) ** -beta)


def fit(points: Sequence[Point], *, draws: int = 500, seed: int = 0) -> Law:
    """The law through the points, on relative errors.

    Args:
        draws: of the bootstrap over runs.

    Raises:
        ValueError: fewer than three sizes or token counts; five numbers cannot be told apart.
    """
    if min(len({p.d_sae for p in points}), len({p.tokens for p in points})) < 3:
        raise ValueError("needs at least three sizes and three token counts")
    found = _fit(points)
    if found is None:
        raise ValueError("no fit was found")
    wanted = np.array([p.fvu for p in points])
    residual = float(np.sqrt(np.mean((law(_inputs(points), *found) / wanted - 1) ** 2)))
    generator = np.random.default_rng(seed)
    drawn = [_fit([points[i] for i in generator.integers(len(points), size=len(points))]) for _ in range(draws)]
    kept = np.array([draw for draw in drawn if draw is not None])
    intervals = {}
    if len(kept):
        low, high = np.quantile(kept, [0.025, 0.975], axis=0)
        intervals = {name: (float(low[i]), float(high[i])) for i, name in enumerate(NAMES)}
    return Law(dict(zip(NAMES, map(float, found), strict=True)), intervals, residual, len(points))


def draw(points: Sequence[Point], fitted: Law) -> "Figure":
    """The points and the law, over tokens and over size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    sizes, tokens = sorted({p.d_sae for p in points}), sorted({p.tokens for p in points})
    shades = ["#b9cfe8", "#7fa8d6", "#4a7fbd", "#2a5d9f", "#173a66", "#0b1f3a"]
    for i, size in enumerate(sizes):
        grid = np.geomspace(tokens[0], tokens[-1], 60)
        colour = shades[i % len(shades)]
        left.plot(grid, [fitted.at(size, t) for t in grid], color=colour, label=f"F = {size:,}")
        left.scatter(*_series(points, "d_sae", size, "tokens"), color=colour, s=16)
    for i, count in enumerate(tokens):
        grid = np.geomspace(sizes[0], sizes[-1], 60)
        colour = shades[i % len(shades)]
        right.plot(grid, [fitted.at(f, count) for f in grid], color=colour, label=f"{count / 1e6:g} M tokens")
        right.scatter(*_series(points, "tokens", count, "d_sae"), color=colour, s=16)
    for ax, title in ((left, "tokens"), (right, "latents (F)")):
        ax.set_xscale("log")
        ax.set_xlabel(title)
        ax.grid(alpha=0.25, which="both")
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=8)
    left.set_ylabel("held-out FVU (1 − EV)")
    return figure


def main(arguments: Sequence[str]) -> None:
    """Train the grid, fit, draw, write."""
    warnings.filterwarnings("ignore")
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    tokens = open_tokens(options.activations, site=options.site, d_model=options.width)
    points = []
    # The cheapest first: a run that is stopped early has the most to show.
    for count in sorted(options.tokens):
        for size in sorted(options.sizes):
            for seed in options.seeds:
                problem = Problem(
                    variant=options.variant,
                    d_model=tokens.d_model,
                    d_sae=size,
                    k=options.k,
                    batch=options.batch,
                    steps=-(-count // options.batch),
                    seed=seed,
                )
                result = losses.measure(
                    problem, Recipe(library="ours"), tokens, held_out=options.held_out, folder=options.results
                )
                points.append(Point(size, count, seed, result["fvu"]))
                print(f"F {size:,}, {count:,} tokens, seed {seed}: FVU {result['fvu']:.4f}", file=sys.stderr)
    try:
        fitted = fit(points)
    except ValueError as error:
        sys.exit(f"scaling: {error}")
    options.figure.parent.mkdir(parents=True, exist_ok=True)
    draw(points, fitted).savefig(options.figure, dpi=130)
    done = {
        "kind": "scaling",
        "command": machine.command("-m benchmarks.scaling", arguments),
        "machine": machine.facts(),
        "tokens": tokens.source,
        "problem": problem.model_dump(),
        "law": fitted.to_json(),
        "points": [vars(point) for point in points],
        "figure": options.figure.name,
    }
    if options.json is not None:
        options.json.write_text(json.dumps(done, indent=1) + "\n")
    for name in NAMES:
        low, high = fitted.intervals.get(name, (float("nan"), float("nan")))
        print(f"{name:6} {fitted.values[name]:.4g}  [{low:.4g}, {high:.4g}]")
    print(f"off by {fitted.residual:.2%} on the mean of {fitted.runs} runs")


def _fit(points: Sequence[Point]) -> np.ndarray | None:
    wanted = np.array([p.fvu for p in points])
    start = (wanted.min() / 2, wanted.mean() / 2, 0.3, wanted.mean() / 4, 0.3)
    bounds = ([0, 0, 0.01, 0, 0.01], [float(wanted.min()), 10, 3, 10, 3])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", OptimizeWarning)
            found, _ = curve_fit(
                law, _inputs(points), wanted, p0=start, sigma=wanted, bounds=bounds, maxfev=20_000
            )
    except (RuntimeError, OptimizeWarning):
        return None
    return np.asarray(found)


def _inputs(points: Sequence[Point]) -> np.ndarray:
    return np.array([[p.d_sae for p in points], [p.tokens for p in points]], dtype=float)


def _series(points: Sequence[Point], key: str, value: int, over: str) -> tuple[list[int], list[float]]:
    chosen = [p for p in points if getattr(p, key) == value]
    return [getattr(p, over) for p in chosen], [p.fvu for p in chosen]


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="benchmarks.scaling")
    found.add_argument("--activations", default="random", help="activation set, .npy file, or `random`")
    found.add_argument("--site", default="blocks.14.resid_post")
    found.add_argument("--width", type=int, default=64, help="of random numbers")
    found.add_argument("--variant", default="topk")
    found.add_argument("--sizes", type=_numbers, default=[1152, 2304, 4608, 9216])
    found.add_argument("--tokens", type=_numbers, default=[125_000, 250_000, 500_000, 1_000_000])
    found.add_argument("--seeds", type=_numbers, default=[0, 1])
    found.add_argument("--k", type=int, default=32)
    found.add_argument("--batch", type=int, default=1024)
    found.add_argument("--held-out", type=int, default=50_000)
    found.add_argument("--threads", type=int, default=2)
    found.add_argument("--results", type=Path, default=RESULTS, help="finished runs, kept between calls")
    found.add_argument("--figure", type=Path, default=FIGURE)
    found.add_argument("--json", type=Path)
    return found


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main(sys.argv[1:])
