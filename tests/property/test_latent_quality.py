"""What single latents are worth, held to references that take nothing together and to what must not matter."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize

from saeops.diagnostics.quality import nearest as blocks
from saeops.diagnostics.quality.coherence import MIN_DOCUMENTS, REACH, Bags, coherence
from saeops.diagnostics.quality.nearest import nearest, nearest_other
from saeops.diagnostics.quality.redundancy import NO_LATENT, redundancy
from saeops.diagnostics.quality.specificity import effective_share, logit_specificity
from saeops.diagnostics.quality.stability import counterpart_cosine, seed_cosine

seeds = st.integers(0, 10_000)


# ── coherence ───────────────────────────────────────────────────────────────

LATENTS, WORDS = 4, 12


def random_contexts(seed: int, count: int = 40) -> pd.DataFrame:
    """Contexts of unequal lengths over few words and documents; some are top contexts, which must not count."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        length = int(generator.integers(1, 7))
        start = int(generator.integers(0, 100))
        rows.append(
            {
                "latent": int(generator.integers(LATENTS)),
                "kind": str(generator.choice(["quantile", "quantile", "quantile", "top"])),
                "document": int(generator.integers(6)),
                "position": start + int(generator.integers(length)),
                "start": start,
                "tokens": generator.integers(0, WORDS, length),
            }
        )
    return pd.DataFrame(rows)


def vector(row: pd.Series, idf: dict[int, float]) -> np.ndarray:
    values = np.zeros(WORDS)
    for place, token in enumerate(row["tokens"]):
        values[token] += math.exp(-abs(row["start"] + place - row["position"]) / REACH) * idf[token]
    return values


def mean_over_pairs(rows: list[tuple[int, np.ndarray]]) -> float:
    cosines = []
    for (document, a), (other, b) in combinations(rows, 2):
        if document != other:
            length = np.linalg.norm(a) * np.linalg.norm(b)
            cosines.append(a @ b / length if length else 0.0)
    return float(np.mean(cosines))


def plain_coherence(contexts: pd.DataFrame, latent: int) -> float:
    """Pair by pair."""
    chosen = contexts[contexts["kind"] == "quantile"]
    holding = {word: sum(word in tokens for tokens in chosen["tokens"]) for word in range(WORDS)}
    idf = {word: math.log((1 + len(chosen)) / (1 + count)) for word, count in holding.items()}
    vectors = [(row["latent"], row["document"], vector(row, idf)) for _, row in chosen.iterrows()]
    own = [(document, v) for of, document, v in vectors if of == latent]
    if len({document for document, _ in own}) < MIN_DOCUMENTS:
        return math.nan
    return mean_over_pairs(own) - mean_over_pairs([(document, v) for _, document, v in vectors])


@given(seeds)
def test_coherence_is_the_mean_over_pairs_of_contexts_from_different_documents(seed: int) -> None:
    contexts = random_contexts(seed)
    expected = [plain_coherence(contexts, latent) for latent in range(LATENTS)]
    np.testing.assert_allclose(coherence(Bags.of(contexts), LATENTS), expected, atol=1e-12)


@given(seeds)
def test_neither_the_order_of_contexts_nor_the_names_of_latents_and_tokens_matter(seed: int) -> None:
    contexts, generator = random_contexts(seed), np.random.default_rng(seed)
    renamed, respelled = generator.permutation(LATENTS), generator.permutation(WORDS)
    other = contexts.sample(frac=1, random_state=seed)
    other = other.assign(latent=renamed[other["latent"]], tokens=[respelled[row] for row in other["tokens"]])
    own, moved = coherence(Bags.of(contexts), LATENTS), coherence(Bags.of(other), LATENTS)
    np.testing.assert_allclose(moved[renamed], own, atol=1e-12)


# ── specificity ─────────────────────────────────────────────────────────────


def vectors(seed: int, n: int = 5, m: int = 40) -> Tensor:
    return torch.randn(n, m, generator=torch.Generator().manual_seed(seed))


@given(seeds, st.floats(1e-3, 1e3))
def test_the_effective_share_knows_neither_scale_nor_order(seed: int, scale: float) -> None:
    values = vectors(seed)
    moved = -scale * values[:, torch.randperm(40, generator=torch.Generator().manual_seed(seed))]
    torch.testing.assert_close(effective_share(moved), effective_share(values), rtol=1e-5, atol=0)


@given(seeds)
def test_the_effective_share_lies_between_that_of_one_value_and_that_of_equal_ones(seed: int) -> None:
    share = effective_share(vectors(seed))
    assert ((share >= 1 / 40 - 1e-9) & (share <= 1 + 1e-6)).all()


@given(st.integers(1, 40))
def test_values_that_are_equal_or_0_have_the_share_of_those_that_are_not_0(active: int) -> None:
    values = torch.zeros(1, 40)
    values[0, :active] = 3.0
    assert float(effective_share(values)) == pytest.approx(active / 40, rel=1e-5)


@given(seeds)
def test_logits_that_all_rise_by_the_same_are_no_effect(seed: int) -> None:
    effects = vectors(seed, 6, 101)
    plain = logit_specificity(lambda rows: rows @ effects, torch.eye(6), vocabulary=101)
    raised = logit_specificity(lambda rows: rows @ effects + 7, torch.eye(6), vocabulary=101)
    np.testing.assert_allclose(raised, plain, rtol=1e-4)
    expected = [
        float(np.abs(row - np.median(row)).sum() ** 2 / ((row - np.median(row)) ** 2).sum() / 101)
        for row in effects.double().numpy()
    ]
    np.testing.assert_allclose(plain, expected, rtol=1e-4)


# ── redundancy and stability ────────────────────────────────────────────────


def rows(seed: int, n: int, width: int = 6) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


@given(seeds, st.integers(1, 30))
def test_the_nearest_row_is_that_of_the_whole_matrix_however_it_is_cut(seed: int, chunk: int) -> None:
    a, b = rows(seed, 9), rows(seed + 1, 7)
    whole = normalize(a, dim=1) @ normalize(b, dim=1).T
    itself = (normalize(a, dim=1) @ normalize(a, dim=1).T).fill_diagonal_(-2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "CHUNK_VALUES", chunk)
        among_others, among_themselves = nearest(a, b), nearest_other(a)
    for found, cosines in ((among_others, whole), (among_themselves, itself)):
        np.testing.assert_allclose(found.cosine_F, cosines.max(1).values, atol=1e-6)
        assert (found.index_F == cosines.argmax(1).numpy()).all()


@given(seeds, st.floats(0.01, 100))
def test_redundancy_follows_its_latents_and_ignores_lengths_and_dead_latents(seed: int, scale: float) -> None:
    W_dec, living = rows(seed, 12), np.arange(12) % 4 != 0
    own = redundancy(W_dec, living)
    order = np.random.default_rng(seed).permutation(12)
    moved = redundancy(W_dec[torch.from_numpy(order)] * scale, living[order])
    np.testing.assert_allclose(moved.cosine_F, own.cosine_F[order], atol=1e-5)
    partners = np.where(moved.latent_F == NO_LATENT, NO_LATENT, order[moved.latent_F])
    assert (partners == own.latent_F[order]).all()
    assert (own.latent_F[~living] == NO_LATENT).all()
    assert living[own.latent_F[living]].all(), "a dead latent is nobody's partner"
    assert np.isnan(own.cosine_F[~living]).all()


@given(seeds, st.integers(0, 20))
def test_mutual_neighbours_are_the_hungarian_matching_of_a_dictionary_found_again(seed: int, lost: int) -> None:
    """The same features in another order, each a little off, and some replaced by others."""
    generator = torch.Generator().manual_seed(seed)
    W_dec = normalize(torch.randn(60, 64, generator=generator), dim=1)
    order = torch.randperm(60, generator=generator)
    noise = normalize(torch.randn(60, 64, generator=generator), dim=1)
    other = normalize(W_dec[order] + 0.3 * noise, dim=1)
    other[:lost] = normalize(torch.randn(lost, 64, generator=generator), dim=1)
    cosines = (W_dec @ other.T).numpy()
    row, column = linear_sum_assignment(cosines, maximize=True)
    hungarian = cosines[row, column]
    found = counterpart_cosine(W_dec, other)
    assert ((found >= 0.7) == (hungarian >= 0.7)).all()
    assert (found >= 0.7).sum() == 60 - lost
    np.testing.assert_allclose(found[found >= 0.7], hungarian[hungarian >= 0.7], atol=1e-6)


@given(seeds)
def test_one_counterpart_is_never_shared_by_two_latents(seed: int) -> None:
    other = rows(seed, 5)
    twins = torch.cat([other, other + 0.01 * rows(seed + 1, 5)])
    assert (counterpart_cosine(twins, other) > 0).sum() <= 5


@given(seeds)
def test_stability_is_the_mean_over_the_other_seeds(seed: int) -> None:
    W_dec, others = rows(seed, 8), [rows(seed + 1, 8), rows(seed + 2, 9)]
    living = np.arange(8) != 3
    expected = np.mean([counterpart_cosine(W_dec, other) for other in others], axis=0)
    found = seed_cosine(W_dec, others, living)
    np.testing.assert_allclose(found[living], expected[living])
    assert np.isnan(found[3])
