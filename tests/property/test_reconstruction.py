"""Explained variance and its bootstrap, held to their plain formulas (field notes, trap 7)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saeops.diagnostics.nulls import Pca, ReducedRank
from saeops.diagnostics.reconstruction import (
    ReconstructionMeter,
    ReconstructionSums,
    explained_variance,
    profile,
    reconstruction_metrics,
)
from saeops.stats import resample_counts

seeds = st.integers(0, 2**31)


def tokens(seed: int, *, documents: int = 12, d_model: int = 5, offset: float = 0.0) -> tuple[torch.Tensor, ...]:
    """Documents of uneven length, each with a mean of its own: (document of each token, x)."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 9, (documents,), generator=generator)
    document_T = torch.arange(documents).repeat_interleave(lengths)
    means = torch.randn(documents, d_model, generator=generator)[document_T]
    return document_T, means + torch.randn(len(document_T), d_model, generator=generator) + offset


def measured(document_T: torch.Tensor, x: torch.Tensor, x_hat: torch.Tensor, batch: int = 7) -> ReconstructionSums:
    meter = ReconstructionMeter(int(document_T.max()) + 1, x.shape[1])
    for start in range(0, len(x), batch):
        part = slice(start, start + batch)
        meter.add(document_T[part], x[part], x_hat[part])
    return meter.sums()


@given(seeds, st.floats(-1000, 1000))
def test_predicting_the_mean_everywhere_explains_exactly_nothing(seed: int, offset: float) -> None:
    document_T, x = tokens(seed, offset=offset)
    x = x.double()
    interval = explained_variance(measured(document_T, x, x.mean(0).expand_as(x)), resamples=100, seed=0)
    assert interval.point == pytest.approx(0, abs=1e-9)
    assert interval.high is not None
    assert interval.high <= 1e-9, "in a resample the sample's mean is at best as good as the resample's own"


@given(seeds, st.integers(1, 40))
def test_batches_do_not_change_the_figure(seed: int, batch: int) -> None:
    document_T, x = tokens(seed)
    x_hat = x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    interval = explained_variance(measured(document_T, x, x_hat, batch), resamples=100, seed=0)
    error = (x.double() - x_hat.double()).square().sum()
    assert interval.point == pytest.approx(float(1 - error / (x.double() - x.double().mean(0)).square().sum()))


@given(seeds)
@settings(max_examples=20)
def test_the_bootstrap_takes_the_mean_anew_in_each_resample(seed: int) -> None:
    """Against the slow version: draw whole documents, and compute everything from their tokens."""
    document_T, x = tokens(seed)
    x = x.double()
    x_hat = 0.7 * x
    interval = explained_variance(measured(document_T, x, x_hat), resamples=100, seed=5)
    draws = []
    for counts in resample_counts(12, resamples=100, seed=5):
        drawn = torch.cat([torch.where(document_T == d)[0].repeat(int(n)) for d, n in enumerate(counts)])
        y, y_hat = x[drawn], x_hat[drawn]
        draws.append(float(1 - (y - y_hat).square().sum() / (y - y.mean(0)).square().sum()))
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))


def test_a_perfect_reconstruction_scores_one_and_costs_nothing() -> None:
    document_T, x = tokens(0)
    metrics = reconstruction_metrics(measured(document_T, x, x), resamples=100, seed=0)
    assert metrics["explained_variance"].point == 1
    assert metrics["mse"].point == 0
    assert metrics["normalised_mse"].point == 0
    assert metrics["cosine"].point == pytest.approx(1)


def test_the_other_figures_follow_their_formulas() -> None:
    document_T, x = tokens(3)
    x_hat = 0.5 * x + 0.1
    metrics = reconstruction_metrics(measured(document_T, x, x_hat), resamples=100, seed=0)
    assert metrics["mse"].point == pytest.approx(float((x - x_hat).square().mean()), rel=1e-5)
    assert metrics["normalised_mse"].point == pytest.approx(
        float((x - x_hat).square().sum() / x.square().sum()), rel=1e-5
    )
    assert metrics["cosine"].point == pytest.approx(float(torch.cosine_similarity(x, x_hat).mean()), rel=1e-5)


def test_documents_without_a_counted_token_are_no_sample() -> None:
    document_T, x = tokens(1)
    metrics = reconstruction_metrics(measured(document_T * 2, x, x), resamples=100, seed=0)
    assert metrics["mse"].n == 12


def test_too_few_documents_give_no_bounds_and_say_so() -> None:
    document_T, x = tokens(0, documents=4)
    interval = explained_variance(measured(document_T, x, 0.5 * x), resamples=100, seed=0)
    assert (interval.low, interval.high) == (None, None)
    assert "fewer than" in interval.note


def test_tokens_that_are_all_alike_explain_nothing_and_say_so() -> None:
    interval = explained_variance(
        measured(torch.arange(10), torch.ones(10, 3), torch.zeros(10, 3)), resamples=100, seed=0
    )
    assert interval.low is None
    assert "alike" in interval.note


def test_intervals_cover_the_truth_about_as_often_as_they_claim() -> None:
    """x̂ = 0.5·x; documents differ in mean, so an interval over tokens would be far too narrow."""
    truth = 1 - 0.25 * (2 + 1) / 2  # a dimension: variance 1 within documents, 1 between, squared mean 1
    generator = np.random.default_rng(0)
    hits, documents, trials = 0, 200, 300
    for trial in range(trials):
        means = generator.normal(1, 1, (documents, 1, 4))
        x_UTD = means + generator.normal(0, 1, (documents, 10, 4))
        square = (x_UTD**2).sum((1, 2))
        tokens_U = np.full(documents, 10.0)
        sums = ReconstructionSums(tokens_U, 0.25 * square, square, x_UTD.sum(1), tokens_U)
        interval = explained_variance(sums, resamples=200, seed=trial)
        assert interval.low is not None
        assert interval.high is not None
        hits += interval.low <= truth <= interval.high
    assert 0.89 <= hits / trials <= 0.985


def test_a_profile_is_each_groups_own_share() -> None:
    document_T, x = tokens(2)
    sums = measured(document_T * 2, x, 0.5 * x)
    shares = profile(sums)
    assert np.isnan(shares[1::2]).all()
    first = x[document_T == 0].double()
    expected = 1 - (0.5 * first).square().sum() / (first - x.double().mean(0)).square().sum()
    assert shares[0] == pytest.approx(float(expected), rel=1e-5)


@given(seeds, st.integers(1, 6))
@settings(max_examples=20)
def test_pca_of_rank_k_explains_what_the_k_largest_singular_values_hold(seed: int, rank: int) -> None:
    _, x = tokens(seed, documents=20, d_model=6)
    x_hat = Pca.fit(x, rank).reconstruct(x)
    singular = torch.linalg.svdvals((x - x.mean(0)).double()).square()
    expected = float(singular[:rank].sum() / singular.sum())
    found = 1 - float((x - x_hat).square().sum() / (x - x.mean(0)).square().sum())
    assert found == pytest.approx(expected, abs=1e-4)


def test_pca_of_rank_zero_is_the_mean() -> None:
    _, x = tokens(0)
    torch.testing.assert_close(Pca.fit(x, 0).reconstruct(x), x.mean(0).expand_as(x))


@given(seeds, st.integers(0, 7))
@settings(max_examples=20)
def test_the_best_linear_map_of_a_site_to_itself_is_pca(seed: int, rank: int) -> None:
    _, x = tokens(seed, documents=20, d_model=6)
    expected = Pca.fit(x, rank).reconstruct(x)
    torch.testing.assert_close(ReducedRank.fit(x, x, rank).predict(x), expected, atol=1e-3, rtol=1e-3)


@given(seeds, st.integers(1, 4))
@settings(max_examples=20)
def test_no_other_linear_map_of_the_same_rank_errs_less(seed: int, rank: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    _, x = tokens(seed, documents=20, d_model=6)
    y = torch.tanh(x @ torch.randn(6, 4, generator=generator)) + torch.randn(len(x), 4, generator=generator)
    best = ReducedRank.fit(x, y, rank)
    least = (y - best.predict(x)).double().square().sum()
    for size in (1e-3, 1e-2, 0.3):
        other = replace(
            best,
            read_DK=best.read_DK + size * torch.randn(best.read_DK.shape, generator=generator),
            write_KE=best.write_KE + size * torch.randn(best.write_KE.shape, generator=generator),
        )
        assert (y - other.predict(x)).double().square().sum() >= least * (1 - 1e-6)
