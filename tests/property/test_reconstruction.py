"""Explained variance and the other ratios, held to their plain formulas."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saeops.diagnostics.metrics import RECONSTRUCTION
from saeops.diagnostics.nulls import Pca, ReducedRank
from saeops.diagnostics.reconstruction import Meter, TokenSums, profile
from saeops.metrics import measure_all
from saeops.stats import Bootstrap, Interval

seeds = st.integers(0, 2**31)
DRAW = Bootstrap(resamples=100, seed=0)


def tokens(seed: int, *, documents: int = 12, d_model: int = 5, offset: float = 0.0) -> tuple[torch.Tensor, ...]:
    """Documents of uneven length, each with a mean of its own: (document of each token, x)."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 9, (documents,), generator=generator)
    document_T = torch.arange(documents).repeat_interleave(lengths)
    means = torch.randn(documents, d_model, generator=generator)[document_T]
    return document_T, means + torch.randn(len(document_T), d_model, generator=generator) + offset


def measured(document_T: torch.Tensor, x: torch.Tensor, x_hat: torch.Tensor, batch: int = 7) -> pd.DataFrame:
    meter, mean = Meter(int(document_T.max()) + 1), x.double().mean(0)
    for start in range(0, len(x), batch):
        part = slice(start, start + batch)
        l0_T = torch.ones(len(x[part]))
        meter.add(document_T[part], TokenSums.of(x[part], x_hat[part], mean, l0_T))
    return meter.frame()


def metrics_of(document_T: torch.Tensor, x: torch.Tensor, x_hat: torch.Tensor) -> dict[str, Interval]:
    return measure_all(RECONSTRUCTION, measured(document_T, x, x_hat), DRAW)


@given(seeds, st.floats(-1000, 1000))
def test_predicting_the_mean_everywhere_explains_exactly_nothing(seed: int, offset: float) -> None:
    document_T, x = tokens(seed, offset=offset)
    mean = x.double().mean(0).expand(len(x), -1)
    explained = metrics_of(document_T, x, mean)["explained_variance"]
    assert (explained.point, explained.low, explained.high) == (0, 0, 0), "in every resample, too"


@given(seeds, st.integers(1, 40))
def test_batches_do_not_change_the_figure(seed: int, batch: int) -> None:
    document_T, x = tokens(seed)
    x_hat = x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    sums = measured(document_T, x, x_hat, batch)
    error = (x.double() - x_hat.double()).square().sum()
    expected = 1 - error / (x.double() - x.double().mean(0)).square().sum()
    assert measure_all(RECONSTRUCTION, sums, DRAW)["explained_variance"].point == pytest.approx(float(expected))


def test_a_perfect_reconstruction_scores_one_and_costs_nothing() -> None:
    document_T, x = tokens(0)
    metrics = metrics_of(document_T, x, x)
    assert metrics["explained_variance"].point == 1
    assert metrics["mse"].point == 0
    assert metrics["normalised_mse"].point == 0
    assert metrics["cosine"].point == pytest.approx(1)
    assert metrics["relative_reconstruction_bias"].point == pytest.approx(1)


def test_the_other_figures_follow_their_formulas() -> None:
    document_T, x = tokens(3)
    x_hat = 0.5 * x + 0.1
    metrics = metrics_of(document_T, x, x_hat)
    assert metrics["mse"].point == pytest.approx(float((x - x_hat).square().mean()), rel=1e-5)
    assert metrics["normalised_mse"].point == pytest.approx(
        float((x - x_hat).square().sum() / x.square().sum()), rel=1e-5
    )
    assert metrics["cosine"].point == pytest.approx(float(torch.cosine_similarity(x, x_hat).mean()), rel=1e-5)


@given(seeds, st.floats(0.1, 3))
def test_the_bias_is_the_factor_that_best_scales_the_activations_to_their_reconstruction(
    seed: int, shrink: float
) -> None:
    """x̂ = γ·x has bias γ: less than 1 where the SAE shrinks what it reads."""
    document_T, x = tokens(seed)
    bias = metrics_of(document_T, x.double(), shrink * x.double())["relative_reconstruction_bias"]
    assert bias.point == pytest.approx(shrink)


def test_a_reconstruction_of_zero_points_nowhere() -> None:
    document_T, x = tokens(3)
    assert metrics_of(document_T, x, torch.zeros_like(x))["cosine"].point == 0


def test_documents_without_a_counted_token_are_no_sample() -> None:
    document_T, x = tokens(1)
    assert metrics_of(document_T * 2, x, x)["mse"].n == 12


def test_too_few_documents_give_no_bounds_and_say_so() -> None:
    document_T, x = tokens(0, documents=4)
    explained = metrics_of(document_T, x, 0.5 * x)["explained_variance"]
    assert (explained.low, explained.high) == (None, None)
    assert "fewer than" in explained.note


def test_tokens_that_are_all_alike_explain_nothing_and_say_so() -> None:
    explained = metrics_of(torch.arange(10), torch.ones(10, 3), torch.zeros(10, 3))["explained_variance"]
    assert explained.low is None
    assert explained.note


def test_a_profile_is_each_groups_own_share() -> None:
    document_T, x = tokens(2)
    shares = profile(measured(document_T * 2, x, 0.5 * x))
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
