"""Intervals: every figure that leaves saeops carries one, with its sample size."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats as scipy_stats

Array = np.ndarray


@dataclass(frozen=True)
class Interval:
    """A figure with its interval.

    `low` and `high` are None where the sample is too small to say (then
    `note` says why). A gate treats a missing bound as a failure.
    """

    point: float
    low: float | None
    high: float | None
    n: int
    """Sample size, in `unit`s."""
    unit: str
    """What was sampled: `documents`, `prompts`, `answers`, …"""
    level: float = 0.95
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Interval":
        return cls(**data)

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.point:.4g} (no interval: {self.note}; n={self.n} {self.unit})"
        return f"{self.point:.4g} [{self.low:.4g}, {self.high:.4g}] (n={self.n} {self.unit})"


def wilson(successes: int, trials: int, *, level: float = 0.95, unit: str = "answers") -> Interval:
    """Wilson's score interval for a proportion (Wilson 1927, JASA 22:209).

    With no trials the interval is [0, 1] and the point 0: nothing is known.
    """
    assert 0 <= successes <= trials
    if trials == 0:
        return Interval(0.0, 0.0, 1.0, 0, unit, level, note="no trials")
    z = float(scipy_stats.norm.ppf(0.5 + level / 2))
    p = successes / trials
    centre = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * np.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    # At p = 0 and p = 1 the exact bound is p itself; rounding must not leave it.
    low = 0.0 if successes == 0 else float(max(0.0, centre - half))
    high = 1.0 if successes == trials else float(min(1.0, centre + half))
    return Interval(p, low, high, trials, unit, level)


def rule_of_three(trials: int, *, level: float = 0.95) -> float:
    """Upper bound of a rate never seen in `trials`: 1 − (1 − level)^(1/trials), about 3/trials at 95 %.

    Source: Hanley & Lippman-Hand 1983, JAMA 249:1743.
    """
    return 1.0 if trials == 0 else float(1 - (1 - level) ** (1 / trials))


def resample_counts(n: int, *, resamples: int, seed: int) -> Float[Array, "resample unit"]:
    """How often each of `n` units is drawn in each bootstrap resample (rows sum to n)."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)


MIN_UNITS = 8
"""Fewer units than this give no interval: percentile bootstraps of so few are too narrow."""


def percentile_interval(
    point: float, draws: Float[Array, " resample"], *, n: int, unit: str, level: float = 0.95
) -> Interval:
    """The percentile interval of bootstrap draws (Efron 1979); none below `MIN_UNITS` units."""
    if n < MIN_UNITS:
        return Interval(point, None, None, n, unit, level, note=f"fewer than {MIN_UNITS} {unit}")
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(point, float(low), float(high), n, unit, level)


def ratio_interval(
    numerator: Float[Array, " unit"],
    denominator: Float[Array, " unit"],
    *,
    resamples: int,
    seed: int,
    unit: str = "documents",
    level: float = 0.95,
) -> Interval:
    """Σ numerator / Σ denominator with a bootstrap over units.

    A ratio of sums, not a mean of ratios: a unit counts by its weight. A mean
    over units is the same with a denominator of ones.
    """
    n = len(numerator)
    total = float(denominator.sum())
    if n == 0 or total == 0:
        return Interval(0.0, None, None, n, unit, level, note="nothing to divide by")
    counts = resample_counts(n, resamples=resamples, seed=seed)
    denominators = counts @ denominator
    draws = (counts @ numerator)[denominators != 0] / denominators[denominators != 0]
    return percentile_interval(float(numerator.sum()) / total, draws, n=n, unit=unit, level=level)
