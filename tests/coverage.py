"""How often intervals hold the truth: worlds whose truth is known, and the share of samples whose interval has it.

`python -m tests.coverage ours 2000` and `… rivals 1000` print the tables of docs/decisions/intervals.md.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats as scipy_stats

from saeops.interventions.crossed import crossed_interval
from saeops.stats import Interval, UnitSums, difference_interval, ratio_interval, resample_counts

Generator = np.random.Generator
Draw = Callable[[Generator, int], UnitSums]

SIZES = (8, 12, 20, 30, 60, 200)
RESAMPLES = 1000


@dataclass(frozen=True)
class World:
    """Documents by the number, and the ratio that endless many of them have."""

    draw: Draw
    truth: float


def _lengths(generator: Generator, n: int) -> np.ndarray:
    return generator.uniform(20, 60, n)


def _unequal(generator: Generator, n: int) -> np.ndarray:
    """Document lengths over two orders of magnitude."""
    return generator.lognormal(4, 1, n)


def _mean(generator: Generator, n: int) -> UnitSums:
    return UnitSums(generator.normal(2, 1, n), np.ones(n))


def _normal(generator: Generator, n: int) -> UnitSums:
    lengths = _lengths(generator, n)
    return UnitSums(generator.normal(2, 1, n) * lengths, lengths)


def _gamma(generator: Generator, n: int) -> UnitSums:
    lengths = _lengths(generator, n)
    return UnitSums(generator.gamma(2, 1, n) * lengths, lengths)


def _lognormal(sigma: float) -> Draw:
    def draw(generator: Generator, n: int) -> UnitSums:
        lengths = _lengths(generator, n)
        return UnitSums(generator.lognormal(0, sigma, n) * lengths, lengths)

    return draw


def _unequal_lengths(generator: Generator, n: int) -> UnitSums:
    lengths = _unequal(generator, n)
    rate = 2 + generator.normal(0, 0.5, n) + generator.normal(0, 3, n) / np.sqrt(lengths)
    return UnitSums(rate * lengths, lengths)


def _longer_is_worse(generator: Generator, n: int) -> UnitSums:
    size = generator.normal(0, 1, n)
    lengths = np.exp(4 + 0.7 * size)
    return UnitSums((2 + 0.3 * size + generator.normal(0, 0.5, n)) * lengths, lengths)


def _error_over_spread(generator: Generator, n: int) -> UnitSums:
    """As explained variance is made: both sums skewed, both longer with the document."""
    spread = _lengths(generator, n) * generator.gamma(4, 1, n)
    return UnitSums(0.2 * generator.lognormal(0, 0.3, n) * spread, spread)


def _loss_recovered(generator: Generator, n: int) -> UnitSums:
    """As CE recovered is made: a denominator that is a noisy difference itself."""
    lengths = _lengths(generator, n)
    lost = generator.normal(3, 0.8, n)
    return UnitSums((lost - generator.normal(0.1, 0.15, n)) * lengths, lost * lengths)


def _rare(generator: Generator, n: int) -> UnitSums:
    """Nine of ten units have nothing, as hardly any answer fails to parse."""
    return UnitSums(generator.gamma(2, 1, n) * (generator.random(n) < 0.1), np.ones(n))


WORLDS: Mapping[str, World] = {
    "normal, a mean over latents": World(_mean, 2.0),
    "normal": World(_normal, 2.0),
    "gamma, skewness 1.4": World(_gamma, 2.0),
    "log-normal, skewness 1.8": World(_lognormal(0.5), float(np.exp(0.125))),
    "unequal documents": World(_unequal_lengths, 2.0),
    "long documents are worse": World(_longer_is_worse, 2.21),
    "error over spread": World(_error_over_spread, 0.2 * float(np.exp(0.045))),
    "loss recovered": World(_loss_recovered, 2.9 / 3),
    "log-normal, skewness 6.2": World(_lognormal(1.0), float(np.exp(0.5))),
    "nine of ten are 0": World(_rare, 0.2),
}


def covers(interval: Interval, truth: float) -> bool:
    """Whether the truth lies inside; an interval without bounds covers nothing."""
    return interval.low is not None and interval.high is not None and interval.low <= truth <= interval.high


Method = Callable[[UnitSums, int], Interval]
"""The 95 % interval of a sample, from a seed."""


def ours(sums: UnitSums, seed: int, *, resamples: int = RESAMPLES) -> Interval:
    """What saeops reports."""
    return ratio_interval(*sums, resamples=resamples, seed=seed)


def coverage(world: World, n: int, *, repeats: int, method: Method = ours) -> float:
    """Share of `repeats` samples of n documents whose interval holds the truth."""
    generator = np.random.default_rng(n)
    samples = (world.draw(generator, n) for _ in range(repeats))
    return float(np.mean([covers(method(sums, i), world.truth) for i, sums in enumerate(samples)]))


def paired(generator: Generator, n: int, difference: float) -> tuple[UnitSums, UnitSums]:
    """Two dictionaries on the same documents: hard documents are hard for both."""
    spread = _lengths(generator, n) * generator.gamma(4, 1, n)
    hard = generator.lognormal(0, 0.3, n)
    first, second = (
        UnitSums((0.2 * hard * np.exp(generator.normal(0, 0.05, n) - 0.00125) + shift) * spread, spread)
        for shift in (0.0, difference)
    )
    return first, second


def paired_coverage(n: int, *, repeats: int, resamples: int = RESAMPLES) -> float:
    """Share of pairs whose interval holds the difference between them."""
    generator = np.random.default_rng(n)
    hits = 0
    for i in range(repeats):
        first, second = paired(generator, n, 0.01)
        hits += covers(difference_interval(second, first, resamples=resamples, seed=i), 0.01)
    return hits / repeats


CROSSED: Mapping[str, tuple[float, float, float]] = {
    "latents and prompts both matter": (1.0, 1.0, 0.5),
    "latents matter": (1.0, 0.1, 0.3),
    "prompts matter": (0.1, 1.0, 0.3),
    "neither does": (0.0, 0.0, 1.0),
}
"""Standard deviations of what a latent, a prompt, and a latent on a prompt add to a mean of 1."""
TABLES = ((8, 8), (8, 12), (16, 12), (30, 12), (100, 24))
"""Latents and prompts."""


def crossed_coverage(kind: str, L: int, U: int, *, repeats: int, resamples: int = RESAMPLES) -> float:
    """Share of tables of L latents and U prompts whose interval holds the mean."""
    generator = np.random.default_rng([L, U])
    latent, prompt, rest = CROSSED[kind]
    hits = 0
    for i in range(repeats):
        rows, columns = generator.normal(0, latent, (L, 1)), generator.normal(0, prompt, (1, U))
        table = 1 + rows + columns + generator.normal(0, rest, (L, U))
        hits += covers(crossed_interval(table, unit="prompts", resamples=resamples, seed=i), 1.0)
    return hits / repeats


# ── what else was tried ─────────────────────────────────────────────────────


def _draws(sums: UnitSums, seed: int) -> tuple[float, np.ndarray]:
    counts = resample_counts(len(sums.numerator), resamples=RESAMPLES, seed=seed)
    point = float(sums.numerator.sum() / sums.denominator.sum())
    return point, (counts @ sums.numerator) / (counts @ sums.denominator)


def _between(point: float, low: float, high: float, sums: UnitSums) -> Interval:
    return Interval(point, float(low), float(high), len(sums.numerator), "documents")


def percentile(sums: UnitSums, seed: int) -> Interval:
    """Efron 1979."""
    point, draws = _draws(sums, seed)
    return _between(point, *np.quantile(draws, [0.025, 0.975]), sums)


def _jackknifed(sums: UnitSums) -> np.ndarray:
    """The ratio without each unit, less the ratio."""
    above, below = sums.numerator.sum() - sums.numerator, sums.denominator.sum() - sums.denominator
    return above / below - sums.numerator.sum() / sums.denominator.sum()


def student(sums: UnitSums, _: int) -> Interval:
    """Student's t with the jackknife's standard error."""
    n, apart = len(sums.numerator), _jackknifed(sums)
    point = float(sums.numerator.sum() / sums.denominator.sum())
    half = scipy_stats.t.ppf(0.975, n - 1) * np.sqrt((n - 1) / n * (apart**2).sum())
    return _between(point, point - half, point + half, sums)


def bias_corrected(sums: UnitSums, seed: int) -> Interval:
    """BCa (Efron 1987), its percentiles expanded as Student's t asks (Hesterberg 2015)."""
    point, draws = _draws(sums, seed)
    n, apart = len(sums.numerator), _jackknifed(sums)
    acceleration = -(apart**3).sum() / (6 * (apart**2).sum() ** 1.5)
    bias = scipy_stats.norm.ppf(np.clip((draws < point).mean(), 1 / RESAMPLES, 1 - 1 / RESAMPLES))
    z = bias + np.sqrt(n / (n - 1)) * scipy_stats.t.ppf([0.025, 0.975], n - 1)
    shares = scipy_stats.norm.cdf(bias + z / (1 - acceleration * z))
    return _between(point, *np.quantile(draws, shares), sums)


def bootstrap_t(sums: UnitSums, seed: int) -> Interval:
    """Hall 1988, with linearised standard errors and its own quantiles."""
    n, (point, draws) = len(sums.numerator), _draws(sums, seed)
    counts = resample_counts(n, resamples=RESAMPLES, seed=seed)
    residuals = sums.numerator - draws[:, None] * sums.denominator
    errors = np.sqrt(n / (n - 1) * (counts * residuals**2).sum(1)) / (counts @ sums.denominator)
    error = (
        np.sqrt(n / (n - 1) * ((sums.numerator - point * sums.denominator) ** 2).sum()) / sums.denominator.sum()
    )
    t = (draws - point)[errors > 0] / errors[errors > 0]
    left, right = np.quantile(t, [0.025, 0.975])
    return _between(point, point - right * error, point - left * error, sums)


RIVALS: Mapping[str, Method] = {
    "percentile": percentile,
    "Student's t, jackknife": student,
    "BCa, expanded": bias_corrected,
    "bootstrap-t": bootstrap_t,
    "ours": ours,
}


def _row(name: str, shares: Iterator[float]) -> str:
    return f"| {name} | " + " | ".join(f"{100 * share:.1f}" for share in shares) + " |"


def _ours(repeats: int) -> Iterator[str]:
    for name, world in WORLDS.items():
        yield _row(name, (coverage(world, n, repeats=repeats) for n in SIZES))
    yield _row("paired difference", (paired_coverage(n, repeats=repeats) for n in SIZES))
    for kind in CROSSED:
        yield _row(kind, (crossed_coverage(kind, L, U, repeats=repeats) for L, U in TABLES))


def _rivals(repeats: int) -> Iterator[str]:
    for name in ("normal", "log-normal, skewness 1.8", "unequal documents", "error over spread"):
        for rival, method in RIVALS.items():
            yield _row(
                f"{name} | {rival}",
                (coverage(WORLDS[name], n, repeats=repeats, method=method) for n in (8, 12, 20, 60)),
            )


if __name__ == "__main__":
    table = {"ours": _ours, "rivals": _rivals}[sys.argv[1]]
    for line in table(int(sys.argv[2])):
        print(line, flush=True)
