"""95 % intervals hold the truth 93 to 97 times in a hundred: measured, on worlds whose truth is known."""

import functools

import numpy as np
import pytest
import scipy.sparse as sp

from saeops.diagnostics.sparsity import Firing, l0_quantile
from tests.coverage import (
    CROSSED,
    WORLDS,
    coverage,
    covers,
    crossed_coverage,
    ours,
    paired_coverage,
    percentile,
)

REPEATS = 1000
RESAMPLES = 300
quick = functools.partial(ours, resamples=RESAMPLES)


@pytest.mark.parametrize(
    ("world", "n"),
    [
        ("normal, a mean over latents", 12),
        ("normal", 8),
        ("gamma, skewness 1.4", 20),
        ("unequal documents", 30),
        ("error over spread", 20),
        ("loss recovered", 60),
    ],
)
def test_ratios_of_sums_are_covered_as_often_as_they_claim(world: str, n: int) -> None:
    assert 0.93 <= coverage(WORLDS[world], n, repeats=REPEATS, method=quick) <= 0.97


def test_percentiles_alone_would_not_pass() -> None:
    # What keeps the tests above from passing whatever the interval.
    assert coverage(WORLDS["error over spread"], 12, repeats=300, method=percentile) < 0.93


@pytest.mark.parametrize("n", [8, 60])
def test_paired_differences_are_covered_as_often_as_they_claim(n: int) -> None:
    assert 0.93 <= paired_coverage(n, repeats=REPEATS, resamples=RESAMPLES) <= 0.97


@pytest.mark.parametrize("kind", ["latents and prompts both matter", "prompts matter"])
def test_means_over_latents_and_prompts_are_covered_as_often_as_they_claim(kind: str) -> None:
    assert 0.93 <= crossed_coverage(kind, 12, 12, repeats=600, resamples=RESAMPLES) <= 0.97


def test_where_neither_latents_nor_prompts_matter_the_crossed_interval_errs_on_the_wide_side() -> None:
    assert set(CROSSED) >= {"neither does"}
    assert 0.95 <= crossed_coverage("neither does", 12, 12, repeats=600, resamples=RESAMPLES) <= 0.99


def test_the_tail_of_l0_is_covered_about_as_often_as_it_claims() -> None:
    truth = l0_quantile(firing_of(np.random.default_rng(0), documents=20_000), 0.95).point
    generator = np.random.default_rng(1)
    samples = (firing_of(generator, documents=30) for _ in range(400))
    share = np.mean([covers(l0_quantile(sample, 0.95), truth) for sample in samples])
    assert 0.92 <= share <= 0.98


def firing_of(generator: np.random.Generator, *, documents: int) -> Firing:
    """Documents of unequal length whose tokens fire more or fewer latents: only their L0 is filled in."""
    widest, tokens_U = 400, generator.integers(30, 120, documents)
    means = np.repeat(32 * np.exp(0.25 * generator.normal(size=documents)), tokens_U)
    l0_T = np.minimum(generator.negative_binomial(8, 8 / (8 + means)), widest - 1)
    document_T = np.repeat(np.arange(documents), tokens_U)
    counts = sp.csr_array((np.ones(len(l0_T), dtype=np.int64), (document_T, l0_T)), shape=(documents, widest))
    nothing = np.zeros(0)
    return Firing(tokens_U, sp.csr_array((documents, 0), dtype=np.int64), counts, nothing, nothing.reshape(0, 1))
