"""What single latents are worth, in worlds where the answer is known."""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from saeops.activations.reader import ActivationSet
from saeops.activations.sites import Sites
from saeops.activations.windows import Window
from saeops.adapters.models import TransformersModel
from saeops.catalog.build import build_catalog
from saeops.catalog.gather import Wanted
from saeops.diagnostics.fidelity import Begin, Pass
from saeops.diagnostics.quality.ablation import (
    FUTURE_TOKENS,
    WINDOWS,
    FiringAt,
    ablation_sparsity,
    firings_to_ablate,
)
from saeops.diagnostics.quality.coherence import MIN_DOCUMENTS, Bags, coherence
from saeops.diagnostics.quality.measure import Latents, Model, quality
from saeops.diagnostics.quality.metrics import BY_COLUMN, QUALITY, LatentQuality, quality_metrics
from saeops.diagnostics.quality.redundancy import NO_LATENT, redundancy
from saeops.diagnostics.quality.specificity import logit_specificity
from saeops.interventions.hooks import ablate, only_at, random_directions
from saeops.sae.canonical import Sae, SaeMeta
from saeops.stats import Bootstrap

D, F = 32, 8
SITE = "blocks.1.resid_post"
DRAW = Bootstrap(200, 0)


def contexts_of(latent: int, documents: Sequence[int], tokens: Callable[[], list[int]]) -> list[dict]:
    """Contexts of five tokens that fire on the middle one."""
    return [
        {
            "latent": latent,
            "kind": "quantile",
            "document": document,
            "position": 12,
            "start": 10,
            "tokens": tokens(),
        }
        for document in documents
    ]


def planted_contexts() -> pd.DataFrame:
    """Latent 0 has a subject, latent 1 one word, latents 2 to 7 have none, latent 8 too few documents, 9 none."""
    generator = np.random.default_rng(0)

    def any_words() -> list[int]:
        return generator.integers(100, 2000, 5).tolist()

    def one_subject() -> list[int]:
        return generator.integers(0, 10, 5).tolist()

    def one_word() -> list[int]:
        words = any_words()
        return [*words[:2], 50, *words[3:]]

    rows = contexts_of(0, range(20), one_subject) + contexts_of(1, range(20), one_word)
    for latent in range(2, 8):
        rows += contexts_of(latent, range(20), any_words)
    rows += contexts_of(8, [0, 1, 2] * 5, one_subject)
    return pd.DataFrame(rows)


def test_contexts_with_a_subject_or_a_word_in_common_cohere_and_others_do_not() -> None:
    found = coherence(Bags.of(planted_contexts()), 10)
    assert found[0] > 0.3
    assert found[1] > 0.08
    assert np.abs(found[2:8]).max() < 0.02


def test_contexts_dealt_out_at_random_do_not_cohere() -> None:
    bags = Bags.of(planted_contexts())
    dealt = [np.nanmean(coherence(bags.shuffled(seed), 10)) for seed in range(40)]
    assert abs(np.mean(dealt)) < 0.01
    assert np.mean(dealt) == pytest.approx(0, abs=4 * np.std(dealt) / np.sqrt(40))


def test_a_latent_seen_in_too_few_documents_has_no_coherence() -> None:
    found = coherence(Bags.of(planted_contexts()), 10)
    assert MIN_DOCUMENTS == 4
    assert np.isnan(found[8:]).all(), "however many contexts they hold"


def test_one_document_that_repeats_itself_makes_no_latent_coherent() -> None:
    generator = np.random.default_rng(0)

    def words() -> list[int]:
        return generator.integers(0, 2000, 5).tolist()

    boilerplate = words()
    rows = contexts_of(0, [0] * 10, lambda: boilerplate) + contexts_of(0, [1, 2, 3], words)
    for latent in (1, 2, 3):
        rows += contexts_of(latent, range(10), words)
    assert abs(coherence(Bags.of(pd.DataFrame(rows)), 4)[0]) < 0.05


def test_without_contexts_nothing_coheres_and_nothing_breaks() -> None:
    none = planted_contexts().assign(kind="top")
    assert np.isnan(coherence(Bags.of(none), 10)).all()


# ── logits ──────────────────────────────────────────────────────────────────


def test_a_row_that_moves_one_token_is_specific_and_a_random_one_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    effects = torch.randn(2, 10_001, generator=generator)
    effects[0] *= 1e-6
    effects[0, 7] = 5
    shares = logit_specificity(lambda rows: rows @ effects, torch.eye(2), vocabulary=10_001)
    assert shares[0] == pytest.approx(1 / 10_001, rel=0.01)
    assert shares[1] == pytest.approx(2 / np.pi, rel=0.02)


# ── redundancy ──────────────────────────────────────────────────────────────


def test_a_latent_said_twice_is_found_with_its_partner_and_opposites_are_not_redundant() -> None:
    W_dec = torch.eye(6)
    W_dec[1] = -W_dec[0]
    W_dec[3] = torch.nn.functional.normalize(W_dec[2] + 0.1 * W_dec[4], dim=0)
    found = redundancy(W_dec, np.array([True] * 5 + [False]))
    assert found.latent_F[[2, 3]].tolist() == [3, 2]
    assert found.latent_F[5] == NO_LATENT
    metrics = quality_metrics(LatentQuality(max_cosine=found.cosine_F), DRAW)
    assert metrics["redundant_fraction"].point == 2 / 5
    assert metrics["redundant_fraction"].note == "1 of 6 latents have no value"
    assert found.cosine_F[0] < 0.1


def test_a_lone_living_latent_has_no_neighbour() -> None:
    found = redundancy(torch.eye(3), np.array([False, True, False]))
    assert np.isnan(found.cosine_F).all()
    assert (found.latent_F == NO_LATENT).all()


# ── ablation ────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def sae() -> Sae:
    """Latent 1 never fires."""
    generator = torch.Generator().manual_seed(0)
    W_dec = random_directions(F, D, generator=generator)
    b_enc = torch.zeros(F)
    b_enc[1] = -1e6
    meta = SaeMeta(variant="topk", site=SITE, d_model=D, d_sae=F, k=4)
    return Sae(W_dec.T.contiguous(), b_enc, W_dec, torch.zeros(D), None, meta)


def passes_of(model: TransformersModel) -> Begin:
    return lambda ids: lambda edit: model.logits(ids, Sites.of(SITE, None).edits(edit))


def firing(latent: int, at: int, length: int, seed: int = 0) -> FiringAt:
    generator = torch.Generator().manual_seed(seed)
    return FiringAt(
        latent, Window(0, 0, tuple(torch.randint(2, 320, (length,), generator=generator).tolist())), at
    )


def plain_share(model: TransformersModel, sae: Sae, firing: FiringAt) -> float:
    """One firing alone, by the edit that interventions use."""
    ids = torch.tensor([firing.window.ids])
    here = torch.arange(ids.shape[1])[None] == firing.at
    run = passes_of(model)(ids)
    without = run(only_at(ablate(sae, firing.latent), here, norm_limit=None))
    delta = (without - run(lambda _, y: y))[0, firing.at :].double().numpy()
    delta -= np.median(delta, axis=1, keepdims=True)
    return float(np.abs(delta).sum() ** 2 / (delta**2).sum() / delta.size)


def test_ablation_is_that_of_each_firing_alone(tiny_model: TransformersModel, sae: Sae) -> None:
    """Whatever the lengths that stand in one pass with it."""
    candidates = [firing(latent, at, at + 9, seed=at) for latent in (0, 2, 3, 4, 5) for at in (3, 20, 11)]
    fires = [one for one in candidates if fires_at(tiny_model, sae, one)]
    assert len(fires) > 5
    found = ablation_sparsity(passes_of(tiny_model), sae, fires, seed=0, advance=lambda _: None)
    for latent in {one.latent for one in fires}:
        shares = [plain_share(tiny_model, sae, one) for one in fires if one.latent == latent]
        assert found.own_F[latent] == pytest.approx(np.mean(shares), rel=0.02)
    assert np.isnan(found.own_F[[6, 7]]).all(), "those that were not asked for"


def fires_at(model: TransformersModel, sae: Sae, one: FiringAt) -> bool:
    x = model.capture(torch.tensor([one.window.ids]), [SITE])[SITE][0, one.at]
    return one.latent in sae.encode(x[None]).latent.tolist()


def test_a_silent_latent_has_no_ablation_sparsity(tiny_model: TransformersModel, sae: Sae) -> None:
    found = ablation_sparsity(passes_of(tiny_model), sae, [firing(1, 3, 12)], seed=0, advance=lambda _: None)
    assert np.isnan(found.own_F).all()
    assert np.isnan(found.random_F).all()


def test_a_latent_that_moves_one_token_scores_least_and_its_random_control_does_not() -> None:
    """A model whose logits are what its site holds: latent 0 moves one token, latent 1 all but one."""
    V, T = 65, 5
    signs = torch.tensor([0.0, *[1.0, -1.0] * 32]) / 8
    W_dec = torch.stack([torch.eye(V)[3], signs])
    meta = SaeMeta(variant="relu_l1", site=SITE, d_model=V, d_sae=2)
    sae = Sae(W_dec.T.contiguous(), torch.zeros(2), W_dec, torch.zeros(V), None, meta)
    h_V = 2 * W_dec.sum(0) + 0.1

    def begin(ids: Tensor) -> Pass:
        h_BWV = h_V.expand(*ids.shape, V).clone()
        return lambda edit: edit(h_BWV, h_BWV)

    firings = [firing(latent, 2, 2 + T) for latent in (0, 1)]
    found = ablation_sparsity(begin, sae, firings, seed=0, advance=lambda _: None)
    # Only the position of the firing itself is moved here, one of T.
    np.testing.assert_allclose(found.own_F, [1 / V / T, 64 / V / T], rtol=1e-4)
    assert (np.abs(found.random_F * T - 2 / np.pi) < 0.2).all()


def test_firings_are_run_from_their_windows_beginning_the_soonest_first() -> None:
    windows = [Window(7, start, tuple(range(1000 + start, 1040 + start))) for start in (0, 39, 78)]
    positions = [38, 30, 20, 5, 39 + 1, 39 + 9, 78 + 3]
    contexts = pd.DataFrame({"latent": 4, "kind": "quantile", "document": 7, "position": positions})
    found = firings_to_ablate(contexts, windows, [4], shift=1)
    assert [(one.window.start, one.at) for one in found] == [(39, 2), (78, 4), (0, 6), (39, 10)]
    assert len(found) == WINDOWS
    for one in found:
        assert len(one.window.ids) == one.at + FUTURE_TOKENS
        assert one.window.ids[0] == 1000 + one.window.start, "with all that stood before it"


def test_firings_with_too_few_positions_to_go_are_not_ablated() -> None:
    windows = [Window(0, 0, tuple(range(30)))]
    contexts = pd.DataFrame({"latent": 4, "kind": "quantile", "document": 0, "position": [13, 14, 29]})
    assert [one.at for one in firings_to_ablate(contexts, windows, [4], shift=1)] == [14]
    assert not firings_to_ablate(contexts, windows, [5], shift=1)


# ── all together ────────────────────────────────────────────────────────────


def test_a_latent_without_a_value_counts_in_no_mean_and_is_counted() -> None:
    values = np.array([0.5, np.nan, 0.7, np.nan])
    interval = quality_metrics(LatentQuality(coherence=values), DRAW)["coherence"]
    assert interval.point == pytest.approx(0.6)
    assert (interval.n, interval.unit, interval.low) == (2, "latents", None)
    assert "2 of 4 latents have no value" in interval.note


def test_what_was_not_measured_gives_no_figure() -> None:
    assert quality_metrics(LatentQuality(ablation_sparsity=np.full(3, np.nan)), DRAW) == {}
    everything = LatentQuality(**{column: np.linspace(0, 1, 9) for column in BY_COLUMN})
    assert quality_metrics(everything, DRAW).keys() == {metric.name for metric in QUALITY}


@pytest.fixture(scope="module")
def latents(tiny_activations: ActivationSet, sae: Sae) -> Latents:
    wanted = Wanted(top=2, quantiles=2, a_quantile=8, context_tokens=8)
    catalog = build_catalog(tiny_activations, sae, wanted, split="explain", seed=0)
    other = torch.randn(F + 1, D, generator=torch.Generator().manual_seed(1))
    living = np.arange(F) != 1
    windows = tiny_activations.windows("explain")
    return Latents(sae, living, catalog.contexts, windows, int(tiny_activations.bos is not None), [other])


def model_of(model: TransformersModel) -> Model:
    return Model(passes_of(model), model.unembed, model.identity.vocabulary)


def test_every_column_is_measured_on_a_real_model(latents: Latents, tiny_model: TransformersModel) -> None:
    done: list[int] = []
    found = quality(latents, model_of(tiny_model), ablated=3, seed=0, advance=done.append)
    frame = found.latents.frame(F)
    assert list(frame) == [field.name for field in fields(LatentQuality)]
    assert frame.loc[1].isna().all(), "latent 1 is dead"
    assert frame["ablation_sparsity"].notna().sum() == 3
    assert 3 <= sum(done) <= 3 * WINDOWS
    assert quality_metrics(found.latents, DRAW).keys() == {metric.name for metric in QUALITY}
    nulls = {null: set(quality_metrics(values, DRAW)) for null, values in found.nulls.items()}
    assert nulls == {
        "shuffled": {"coherence"},
        "random_directions": {"ablation_sparsity", "logit_specificity"},
    }


def test_equal_seeds_give_equal_figures(latents: Latents, tiny_model: TransformersModel) -> None:
    once, again = (
        quality(latents, model_of(tiny_model), ablated=2, seed=5, advance=lambda _: None) for _ in range(2)
    )
    pd.testing.assert_frame_equal(once.latents.frame(F), again.latents.frame(F), check_exact=True)


def test_inside_an_mlp_a_direction_has_no_logit_effect(latents: Latents, tiny_model: TransformersModel) -> None:
    inside = latents.sae.meta.model_copy(update={"site": "blocks.1.mlp_hidden"})
    elsewhere = replace(latents, sae=replace(latents.sae, meta=inside), other_seeds=[])
    found = quality(elsewhere, model_of(tiny_model), ablated=0, seed=0)
    assert found.latents.logit_specificity is None
    assert found.latents.seed_cosine is None, "and without other seeds nothing is known of stability"
    assert quality_metrics(found.latents, DRAW).keys() == {"coherence", "max_cosine", "redundant_fraction"}
    assert found.latents.frame(F)[["logit_specificity", "seed_cosine", "ablation_sparsity"]].isna().all(axis=None)
