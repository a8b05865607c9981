"""Intervals: every figure that leaves saeops carries one, with its sample size."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

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


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn."""

    resamples: int
    seed: int


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
    return np.concatenate(list(_counts(n, resamples=resamples, seed=seed)))


BLOCK = 4_000_000
"""Most numbers that one block of resamples holds."""


def _counts(n: int, *, resamples: int, seed: int) -> Iterator[Float[Array, "resample unit"]]:
    """The rows of `resample_counts`, a block at a time."""
    generator, rows = np.random.default_rng(seed), max(1, BLOCK // max(n, 1))
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = generator.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


MIN_UNITS = 8
"""Fewer units than this give no interval: with so few, none that was measured covers as often as it says."""


def percentile_interval(
    point: float, draws: Float[Array, " resample"], *, n: int, unit: str, level: float = 0.95
) -> Interval:
    """The expanded percentile interval of bootstrap draws; none below `MIN_UNITS` units.

    For figures that are no ratios of sums. Plain percentiles are too narrow for
    few units; these lie as much further out as Student's t is wider than the
    normal (Hesterberg 2015, The American Statistician 69:371).
    """
    if n < MIN_UNITS:
        return Interval(point, None, None, n, unit, level, note=f"fewer than {MIN_UNITS} {unit}")
    tail = float(scipy_stats.norm.cdf(np.sqrt(n / (n - 1)) * scipy_stats.t.ppf((1 - level) / 2, n - 1)))
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(point, float(low), float(high), n, unit, level)


class UnitSums(NamedTuple):
    """A ratio of sums over units: what each unit adds above and below the line."""

    numerator: Float[Array, " unit"]
    denominator: Float[Array, " unit"]


def ratio_interval(
    numerator: Float[Array, " unit"],
    denominator: Float[Array, " unit"],
    *,
    resamples: int,
    seed: int,
    unit: str = "documents",
    level: float = 0.95,
) -> Interval:
    """Σ numerator / Σ denominator with a studentised bootstrap over units.

    A ratio of sums, not a mean of ratios: a unit counts by its weight. A mean
    over units is the same with a denominator of ones. How often it covers, and
    what else was tried: docs/decisions/intervals.md.
    """
    terms = [(1.0, UnitSums(numerator, denominator))]
    return _studentised(terms, resamples=resamples, seed=seed, unit=unit, level=level)


def difference_interval(
    figure: UnitSums,
    beside: UnitSums,
    *,
    resamples: int,
    seed: int,
    unit: str = "documents",
    level: float = 0.95,
) -> Interval:
    """`figure` − `beside`, with a studentised bootstrap that draws a unit into both at once.

    Both hold the same units in the same order: what a unit does to both alike,
    such as being hard, cancels.
    """
    assert len(figure.numerator) == len(beside.numerator), "every unit has both"
    terms = [(1.0, figure), (-1.0, beside)]
    return _studentised(terms, resamples=resamples, seed=seed, unit=unit, level=level)


def unpaired_difference(figure: Interval, beside: Interval, *, level: float = 0.95) -> Interval:
    """`figure` − `beside` from their intervals alone (Zou & Donner 2008, Statistics in Medicine 27:1693).

    For samples drawn apart; where they have something in common it is too wide.
    An interval of another level is stretched to this one as a normal's would be.
    """
    point, n = figure.point - beside.point, min(figure.n, beside.n)
    if figure.low is None or figure.high is None or beside.low is None or beside.high is None:
        missing = next(side for side in (figure, beside) if side.low is None or side.high is None)
        return Interval(point, None, None, n, figure.unit, level, note=missing.note)
    z = scipy_stats.norm.ppf
    ours, theirs = (float(z(0.5 + level / 2) / z(0.5 + side.level / 2)) for side in (figure, beside))
    down = np.hypot(ours * (figure.point - figure.low), theirs * (beside.high - beside.point))
    up = np.hypot(ours * (figure.high - figure.point), theirs * (beside.point - beside.low))
    return Interval(point, float(point - down), float(point + up), n, figure.unit, level)


# ── the studentised bootstrap ───────────────────────────────────────────────
# U unit, R resample, K ratio, C column: the residual and the denominator of each ratio

ROUNDING = 1e-12
"""A standard error below this share of the figure's size is rounding: all units are alike."""


@dataclass(frozen=True)
class _Ratios:
    """Σ_k weight_k · ratio_k, as residuals that sum to 0 over the units."""

    point: float
    size: float
    """Σ_k Σ|numerator| / |Σ denominator|: what rounding is measured against."""
    weight_K: Float[Array, " K"]
    residual_UK: Float[Array, "U K"]
    """numerator − ratio · denominator"""
    below_UK: Float[Array, "U K"]
    """denominator"""

    @classmethod
    def of(cls, terms: Sequence[tuple[float, UnitSums]]) -> "_Ratios":
        weight_K = np.array([weight for weight, _ in terms])
        above_UK = np.stack([sums.numerator for _, sums in terms], axis=1).astype(np.float64)
        below_UK = np.stack([sums.denominator for _, sums in terms], axis=1).astype(np.float64)
        ratio_K = above_UK.sum(0) / below_UK.sum(0)
        size = float((np.abs(above_UK).sum(0) / np.abs(below_UK.sum(0))).sum())
        return cls(float(weight_K @ ratio_K), size, weight_K, above_UK - ratio_K * below_UK, below_UK)

    def error(self) -> float:
        """The jackknife's (Efron & Tibshirani 1993, ch. 11); infinite if one unit is the whole denominator."""
        left_UK = self.below_UK.sum(0) - self.below_UK
        if (left_UK * self.below_UK.sum(0) <= 0).any():
            return float("inf")
        n = len(left_UK)
        pull_U = (self.residual_UK / left_UK) @ self.weight_K
        return float(np.sqrt((n - 1) / n * (pull_U**2).sum()))

    def t(self, *, resamples: int, seed: int) -> Float[Array, " R"]:
        """(resampled − point) / linearised standard error of each resample whose denominators keep their signs."""
        n, K = self.residual_UK.shape
        column_UC = np.concatenate([self.residual_UK, self.below_UK], axis=1)
        product_UCC = column_UC[:, :, None] * column_UC[:, None, :]
        shift, error = [], []
        for counts_RU in _counts(n, resamples=resamples, seed=seed):
            sum_RC = counts_RU @ column_UC
            kept = (sum_RC[:, K:] * self.below_UK.sum(0) > 0).all(axis=1)
            moved_RK = sum_RC[kept, :K] / sum_RC[kept, K:]
            slope_RK = self.weight_K / sum_RC[kept, K:]
            lever_RC = np.concatenate([slope_RK, -slope_RK * moved_RK], axis=1)
            square_RCC = (counts_RU[kept] @ product_UCC.reshape(n, -1)).reshape(-1, 2 * K, 2 * K)
            variance_R = n / (n - 1) * np.einsum("rc,rcd,rd->r", lever_RC, square_RCC, lever_RC)
            shift.append(moved_RK @ self.weight_K)
            error.append(np.sqrt(np.maximum(variance_R, 0)))
        return quotients(np.concatenate(shift), np.concatenate(error), error=self.error())


def quotients(shift_R: Float[Array, " R"], error_R: Float[Array, " R"], *, error: float) -> Float[Array, " R"]:
    """Each resample's shift in units of its own standard error.

    A resample whose units are all but alike, measured by the figure's own
    `error`, says only that the figure may be as far off as any other says.
    """
    spread = error_R > 1e-6 * error
    t_R = np.divide(shift_R, error_R, out=np.zeros_like(shift_R), where=spread)
    farthest = float(np.abs(t_R).max(initial=0.0))
    return np.where(spread, t_R, np.sign(shift_R) * farthest)


def studentised_interval(
    point: float, error: float, t_R: Float[Array, " R"], *, n: int, unit: str, level: float
) -> Interval:
    """The bootstrap-t (Hall 1988, Annals of Statistics 16:927), its quantiles halfway to its symmetric form's.

    Args:
        error: the figure's standard error.
        t_R: `quotients` of its resamples.
    """
    tail = (1 - level) / 2
    left, right = np.quantile(t_R, [tail, 1 - tail])
    both = np.quantile(np.abs(t_R), level)
    low, high = point - (right + both) / 2 * error, point - (left - both) / 2 * error
    return Interval(point, float(low), float(high), n, unit, level)


def _studentised(
    terms: Sequence[tuple[float, UnitSums]], *, resamples: int, seed: int, unit: str, level: float
) -> Interval:
    n = len(terms[0][1].numerator)
    if n == 0 or any(sums.denominator.sum() == 0 for _, sums in terms):
        return Interval(0.0, None, None, n, unit, level, note="nothing to divide by")
    ratios = _Ratios.of(terms)
    if n < MIN_UNITS:
        return Interval(ratios.point, None, None, n, unit, level, note=f"fewer than {MIN_UNITS} {unit}")
    error = ratios.error()
    if error <= ROUNDING * ratios.size:
        return Interval(ratios.point, ratios.point, ratios.point, n, unit, level, note=f"all {unit} alike")
    t_R = ratios.t(resamples=resamples, seed=seed) if np.isfinite(error) else np.empty(0)
    if len(t_R) < (1 + level) / 2 * resamples:
        note = f"too few of the {unit} carry the denominator: it may as well be 0"
        return Interval(ratios.point, None, None, n, unit, level, note)
    return studentised_interval(ratios.point, error, t_R, n=n, unit=unit, level=level)
