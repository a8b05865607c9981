"""The bench's measurements on a tiny real model, with directions whose effect is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from saeops.activations.policy import TokenPolicy
from saeops.activations.sites import Sites
from saeops.adapters.models import TransformersModel, load_model
from saeops.interventions.config import BenchConfig
from saeops.interventions.crossed import crossed_interval
from saeops.interventions.effects import Bench, Chosen, LatentEffects
from saeops.interventions.hooks import clamp, random_directions, steer
from saeops.interventions.metrics import INTERVENTIONS, METRICS, Benched
from saeops.interventions.panel import ScoredItem
from saeops.interventions.passes import BATCH_TOKENS, Site
from saeops.interventions.tabulate import effects_table, spearman
from saeops.metrics import measure_all
from saeops.params import ModelParams
from saeops.sae.canonical import Sae, SaeMeta
from saeops.stats import Bootstrap
from tests.tiny import FAMILIES, Family, save_tiny_model

D = 32
SITE = "blocks.2.resid_post"
PLANTED = 40
"""A token whose own unembedding direction is latent 0."""


@pytest.fixture(scope="module")
def site(tiny_model: TransformersModel) -> Site:
    return Site(tiny_model, Sites.of(SITE, None), TokenPolicy(), None)


@pytest.fixture(scope="module")
def sae(tiny_model: TransformersModel) -> Sae:
    """Latent 0 raises the planted token, latent 1 never fires, the others are random."""
    generator = torch.Generator().manual_seed(0)
    W_dec = random_directions(8, D, generator=generator)
    effects_DV = tiny_model.unembed(torch.eye(D))
    W_dec[0] = effects_DV[:, PLANTED] / effects_DV[:, PLANTED].norm()
    b_enc = torch.zeros(8)
    b_enc[1] = -1e6
    meta = SaeMeta(variant="relu_l1", site=SITE, d_model=D, d_sae=8)
    return Sae(W_dec.T.contiguous(), b_enc, W_dec, torch.zeros(D), None, meta)


@pytest.fixture(scope="module")
def bench(site: Site, sae: Sae) -> Bench:
    config = BenchConfig(random_directions=4, target_tokens=1, resamples=200)
    items = [ScoredItem(tuple(range(20 + i, 25 + 2 * i)), (50, 51), (60,)) for i in range(10)]
    neutral = [site.window(range(100 + i, 112 + i), document=i) for i in range(9)]
    return Bench.prepare(site, sae, config, items=items, neutral=neutral, seed=3)


def chosen(site: Site, latent: int, maximum: float = 3.0) -> Chosen:
    contexts = tuple(site.window(range(30 + i, 40 + i)) for i in range(8))
    return Chosen(latent, "random", maximum, contexts)


def test_batches_hold_every_window_once_with_little_padding(site: Site) -> None:
    lengths = [3, 40, 5, 4, 200, 39, 3, 41]
    windows = [site.window(range(10, 10 + n)) for n in lengths]
    batches = site.batches(windows)
    seen = {}
    for batch in batches:
        B, W = batch.ids_BW.shape
        assert B == 1 or B * W <= BATCH_TOKENS
        assert B * W - int(batch.lengths_B.sum()) <= 0.2 * B * W
        for row, (index, length) in enumerate(zip(batch.order_B, batch.lengths_B, strict=True)):
            seen[int(index)] = tuple(batch.ids_BW[row, :length].tolist())
            assert not batch.mask_BW[row, 0]
            assert not batch.mask_BW[row, length:].any()
    assert [seen[i] for i in range(len(windows))] == [window.ids for window in windows]


def test_batched_passes_give_what_one_window_at_a_time_gives(site: Site) -> None:
    windows = [site.window(range(10 + n, 10 + 2 * n)) for n in (9, 3, 7, 3, 5)]
    edit = steer(torch.ones(D) / D**0.5, 2.0)
    together = site.last(site.batches(windows), edit)
    for row, window in zip(together, windows, strict=True):
        [batch] = site.batches([window])
        alone = next(iter(site.every([batch], edit)))[0, -1]
        torch.testing.assert_close(row, alone, atol=1e-4, rtol=1e-4)


def test_steering_along_a_planted_direction_raises_its_token_and_more_so_when_stronger(
    bench: Bench, site: Site
) -> None:
    measured = bench.measure(chosen(site, 0))
    means = [np.mean(s.target.effect) for s in measured.steered]
    assert means[0] > 0.3
    assert means == sorted(means)
    for steered in measured.steered:
        assert np.mean(steered.target.effect) > np.mean(steered.target.control)
        assert steered.amount == steered.strength * 3.0
    assert min(measured.steer_kl.effect) > 0


def test_no_strength_changes_nothing(bench: Bench, site: Site) -> None:
    measured = bench.measure(chosen(site, 0, maximum=0.0))
    for steered in measured.steered:
        for pair in (steered.target, steered.moved, steered.stayed):
            assert set(pair.effect) == set(pair.control) == {0.0}
    assert set(measured.steer_kl.effect) == {0.0}


def test_ablating_a_latent_that_never_fires_changes_nothing(bench: Bench, site: Site) -> None:
    measured = bench.measure(chosen(site, 1))
    assert set(measured.ablate_target.effect) == {0.0}
    assert set(measured.ablate_kl.effect) == set(measured.ablate_kl.control) == {0.0}
    by_passes = bench._neutral_kl(clamp(bench.sae, 1, 0.0))
    assert set(by_passes) == {0.0}


def test_ablating_the_planted_latent_where_it_fires_lowers_its_token(bench: Bench, site: Site) -> None:
    assert np.mean(bench.measure(chosen(site, 0)).ablate_target.effect) < 0


def test_the_same_seed_gives_the_same_bytes_whatever_was_measured_before(bench: Bench, site: Site) -> None:
    first = bench.measure(chosen(site, 2)).to_json()
    bench.measure(chosen(site, 3))
    again = bench.measure(chosen(site, 2)).to_json()
    assert again == first
    assert LatentEffects.from_json(first).to_json() == first
    other = replace(bench, seed=4).measure(chosen(site, 2))
    assert other.steered[0].target.effect == LatentEffects.from_json(first).steered[0].target.effect
    assert other.steered[0].target.control != LatentEffects.from_json(first).steered[0].target.control


def test_the_table_and_the_figures_agree_with_the_raw_numbers(bench: Bench, site: Site) -> None:
    effects = [bench.measure(chosen(site, latent)) for latent in (0, 2)]
    table = effects_table(effects, resamples=200, seed=0)
    row = table[(table["latent"] == 0) & (table["metric"] == "target_logprob") & (table["strength"] == 2.0)]
    raw = effects[0].steered[1].target
    assert row["point"].item() == pytest.approx(np.mean(raw.effect))
    assert row["difference_point"].item() == pytest.approx(np.mean(raw.effect) - np.mean(raw.control))
    assert row["low"].item() <= row["point"].item() <= row["high"].item()
    assert (row["n"].item(), row["unit"].item()) == (10, "prompts")

    metrics = measure_all(INTERVENTIONS, Benched(effects, 2.0), Bootstrap(200, 0))
    assert metrics.keys() == METRICS.keys()
    pooled = np.mean([e.steered[1].target.effect for e in effects])
    assert metrics["steering_effect_nats"].point == pytest.approx(pooled)
    # Two latents are too few for an interval, and say so.
    assert metrics["steering_effect_nats"].low is None
    assert metrics["steering_beats_random"].n == 2
    assert 0 <= metrics["steering_beats_random"].low <= metrics["steering_beats_random"].high <= 1


def test_without_prompts_told_apart_specificity_has_no_interval(site: Site, sae: Sae) -> None:
    items = [ScoredItem(tuple(range(20, 26)), (), ())] * 8
    neutral = [site.window(range(100, 108))]
    config = BenchConfig(random_directions=1, strengths=(1.0,))
    effects = [Bench.prepare(site, sae, config, items=items, neutral=neutral, seed=0).measure(chosen(site, 0))]
    table = effects_table(effects, resamples=100, seed=0)
    assert not table["metric"].str.startswith("panel").any()
    metrics = measure_all(INTERVENTIONS, Benched(effects, 1.0), Bootstrap(100, 0))
    assert metrics["panel_specificity_nats"].low is None
    assert "no prompts" in metrics["panel_specificity_nats"].note


def test_an_interval_over_latents_and_prompts_is_wider_than_over_either() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(12, 1)) + generator.normal(size=(1, 30))
    both = crossed_interval(values, unit="prompts", resamples=2000, seed=1)
    # The variance of the mean is the sum of both parts: 1/12 + 1/30.
    assert both.low is not None
    width = (both.high - both.low) / 3.92
    expected = np.sqrt(values.mean(1).var() / 12 + values.mean(0).var() / 30)
    assert width == pytest.approx(expected, rel=0.15)


def test_spearman_agrees_with_scipy_and_is_zero_for_no_change() -> None:
    from scipy.stats import spearmanr

    y = np.random.default_rng(0).normal(size=(20, 5)).round(1)
    x = [0.0, 1.0, 2.0, 4.0, 8.0]
    expected = [spearmanr(x, row).statistic for row in y]
    np.testing.assert_allclose(spearman(x, y), expected, atol=1e-12)
    assert spearman(x, np.ones((1, 5))).tolist() == [0.0]


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_at_one_position_are_those_of_the_whole_window(family: Family, tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / family, family)
    model = load_model(ModelParams(ref=str(folder), device="cpu"), Path("unused"))
    ids_BW = torch.randint(2, 300, (3, 6), generator=torch.Generator().manual_seed(0))
    at_B = torch.tensor([5, 2, 0])
    edits = Sites.of("blocks.1.resid_post", None).edits(steer(torch.ones(D) / D**0.5, 3.0))
    whole = model.logits(ids_BW, edits)[torch.arange(3), at_B]
    torch.testing.assert_close(model.logits(ids_BW, edits, at=at_B)[:, 0], whole, atol=1e-5, rtol=1e-5)
    assert model.logits(ids_BW).shape == (3, 6, model.identity.vocabulary)
