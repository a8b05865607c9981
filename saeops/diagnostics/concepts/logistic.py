"""Logistic probes on one number, many at once: Newton's method on runs of cells.

A cell is a value with how many tokens have it and how many of these are positive, so that tokens on which a
latent is silent are one cell, and activations that are nearly equal can be.

# P probe, N cell (all probes' cells one after another)
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit

Array = np.ndarray

RIDGE = 1e-2
"""Twice the nats that a weight of 1 / (largest value) costs: what separates exactly has a finite probe."""
FLAT, STEEP = 1e-6, 1e6
"""Least and most that a probe's steps are damped."""


@dataclass(frozen=True)
class Cells:
    """Values with their counts, in one run a probe; no run is empty."""

    value_N: Float[Array, " N"]
    count_N: Float[Array, " N"]
    positive_N: Float[Array, " N"]
    start_P: Int[Array, " P"]
    """Probe p owns the cells from start[p] up to start[p + 1]."""

    def sums(self, summand_N: Float[Array, " N"]) -> Float[Array, " P"]:
        """Σ over each probe's cells."""
        return np.add.reduceat(summand_N, self.start_P)

    @property
    def length_P(self) -> Int[Array, " P"]:
        """Cells of each probe."""
        return np.diff(np.append(self.start_P, len(self.value_N)))


@dataclass(frozen=True)
class Probes:
    """p(positive) = σ(weight · value + bias)."""

    weight_P: Float[Array, " P"]
    bias_P: Float[Array, " P"]
    loss_P: Float[Array, " P"]
    """Mean cross-entropy in nats a token."""


@dataclass(frozen=True)
class _At:
    """Loss (with the ridge), gradient and curvature at a point."""

    loss_P: Array
    gradient_P2: Array
    curvature_P3: Array
    """∂²/∂w², ∂²/∂w∂b, ∂²/∂b²"""


def fit(cells: Cells, *, steps: int, start: Probes | None = None) -> Probes:
    """Least cross-entropy of each probe, by Newton steps damped until they go down (Marquardt 1963).

    Args:
        start: probes to go on from; none: constants at the base rate.
    """
    largest_P = np.maximum(np.maximum.reduceat(cells.value_N, cells.start_P), 1e-30)
    scaled = Cells(
        cells.value_N / largest_P.repeat(cells.length_P), cells.count_N, cells.positive_N, cells.start_P
    )
    count_P, positive_P = cells.sums(cells.count_N), cells.sums(cells.positive_N)
    if start is None:
        rate_P = (positive_P + 0.5) / (count_P + 1)
        point_P2 = np.stack([np.zeros_like(rate_P), np.log(rate_P / (1 - rate_P))], axis=1)
    else:
        point_P2 = np.stack([start.weight_P * largest_P, start.bias_P], axis=1)
    damping_P = np.full(len(point_P2), 1e-3)
    at = _look(scaled, point_P2)
    for _ in range(steps):
        tried_P2 = point_P2 - _step(at, damping_P)
        there = _look(scaled, tried_P2)
        better_P = there.loss_P < at.loss_P
        point_P2 = np.where(better_P[:, None], tried_P2, point_P2)
        at = _chosen(better_P, there, at)
        damping_P = np.clip(damping_P * np.where(better_P, 0.1, 10.0), FLAT, STEEP)
    loss_P = (at.loss_P - RIDGE / 2 * point_P2[:, 0] ** 2) / count_P
    return Probes(point_P2[:, 0] / largest_P, point_P2[:, 1], loss_P)


def _look(cells: Cells, point_P2: Array) -> _At:
    weight_P, bias_P = point_P2.T
    logit_N = weight_P.repeat(cells.length_P) * cells.value_N + bias_P.repeat(cells.length_P)
    rate_N = expit(logit_N)
    loss_N = cells.count_N * np.logaddexp(0, logit_N) - cells.positive_N * logit_N
    slope_N = cells.count_N * rate_N - cells.positive_N
    bend_N = cells.count_N * rate_N * (1 - rate_N)
    bend_value_N = bend_N * cells.value_N
    gradient = [cells.sums(slope_N * cells.value_N) + RIDGE * weight_P, cells.sums(slope_N)]
    curvature = [cells.sums(bend_value_N * cells.value_N) + RIDGE, cells.sums(bend_value_N), cells.sums(bend_N)]
    loss_P = cells.sums(loss_N) + RIDGE / 2 * weight_P**2
    return _At(loss_P, np.stack(gradient, axis=1), np.stack(curvature, axis=1))


def _step(at: _At, damping_P: Array) -> Array:
    """(H + damping · diag H)⁻¹ g"""
    ww, wb, bb = at.curvature_P3.T
    # A saturated probe has no curvature left in its bias; the least keeps the step finite.
    ww, bb = ww * (1 + damping_P), bb * (1 + damping_P) + 1e-9
    g_w, g_b = at.gradient_P2.T
    determinant = np.maximum(ww * bb - wb**2, 1e-12 * ww * bb)
    return np.stack([(bb * g_w - wb * g_b) / determinant, (ww * g_b - wb * g_w) / determinant], axis=1)


def _chosen(first_P: Array, a: _At, b: _At) -> _At:
    return _At(
        np.where(first_P, a.loss_P, b.loss_P),
        np.where(first_P[:, None], a.gradient_P2, b.gradient_P2),
        np.where(first_P[:, None], a.curvature_P3, b.curvature_P3),
    )
