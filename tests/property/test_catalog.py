"""The streamed catalog, held to a brute-force oracle (field notes, trap 13)."""

from collections import defaultdict

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saeops.catalog.contexts import contexts
from saeops.catalog.gather import CodedBatch, Gathered, Wanted, by_quantile, favourite_tokens, gather
from saeops.catalog.layout import Layout
from saeops.catalog.logits import logit_effects
from saeops.catalog.strongest import Entries, random_score
from saeops.sae.codes import Codes

F = 6
WANTED = Wanted(top=3, quantiles=2, a_quantile=2, context_tokens=2)


class World:
    """A few documents with dense latent activations; masked tokens have none at all."""

    def __init__(self, seed: int, *, ties: bool) -> None:
        generator = np.random.default_rng(seed)
        documents = sorted(generator.choice(50, size=int(generator.integers(1, 6)), replace=False).tolist())
        tokens = [generator.integers(0, 9, size=int(generator.integers(1, 14))) for _ in documents]
        self.layout = Layout.of(documents, tokens, window_tokens=4)
        rows = len(self.layout.token_T)
        values = generator.integers(1, 3, (rows, F)) if ties else generator.random((rows, F)) + 0.1
        f_TF = np.where(generator.random((rows, F)) < 0.4, values, 0).astype(np.float32)
        f_TF[:, 0] = 0  # a dead latent
        self.rows = np.flatnonzero(generator.random(rows) < 0.9)
        self.f_TF = f_TF * np.isin(np.arange(rows), self.rows)[:, None]

    def batches(self, size: int) -> list[CodedBatch]:
        parts = [self.rows[i : i + size] for i in range(0, len(self.rows), size)]
        return [CodedBatch(rows, Codes.from_dense(torch.from_numpy(self.f_TF[rows]))) for rows in parts]

    def gathered(self, size: int, wanted: Wanted = WANTED) -> Gathered:
        return gather(self.batches(size), self.layout, wanted, latents=F, seed=0)


worlds = st.builds(World, st.integers(0, 2**31), ties=st.booleans())


def brute_force_top(world: World, n: int) -> dict[int, list[tuple[int, float]]]:
    """For each latent: the best row of each window, then the n best of those; the earlier row wins a tie."""
    top = {}
    for latent in range(F):
        best: dict[int, int] = {}
        for row in world.rows:
            if world.f_TF[row, latent] > 0:
                window = int(world.layout.window_start(np.array([row]))[0])
                if window not in best or world.f_TF[row, latent] > world.f_TF[best[window], latent]:
                    best[window] = int(row)
        ordered = sorted(best.values(), key=lambda row: (-world.f_TF[row, latent], row))[:n]
        top[latent] = [(row, float(world.f_TF[row, latent])) for row in ordered]
    return top


def by_latent(entries: Entries) -> dict[int, list[tuple[int, float]]]:
    found: dict[int, list[tuple[int, float]]] = {latent: [] for latent in range(F)}
    for latent, row, value in zip(
        entries.latent.tolist(), entries.token.tolist(), entries.value.tolist(), strict=True
    ):
        found[latent].append((row, value))
    return found


@given(worlds, st.integers(1, 20), st.integers(1, 5))
@settings(max_examples=150)
def test_top_contexts_equal_a_brute_force_search(world: World, batch: int, n: int) -> None:
    wanted = Wanted(top=n, quantiles=2, a_quantile=2, context_tokens=2)
    assert by_latent(world.gathered(batch, wanted).top) == brute_force_top(world, n)


@given(worlds, st.integers(1, 20))
def test_samples_do_not_depend_on_how_the_stream_was_cut(world: World, batch: int) -> None:
    assert by_latent(world.gathered(batch).sample) == by_latent(world.gathered(1000).sample)


@given(worlds, st.integers(1, 20))
def test_counts_and_sums_are_the_dense_ones(world: World, batch: int) -> None:
    gathered = world.gathered(batch)
    assert gathered.tokens == len(world.rows)
    assert gathered.n_active_F.tolist() == (world.f_TF > 0).sum(0).tolist()
    np.testing.assert_allclose(gathered.sum_F, world.f_TF.sum(0), rtol=1e-5)
    np.testing.assert_array_equal(gathered.max_F, world.f_TF.max(0, initial=0))


@given(worlds, st.integers(1, 20))
@settings(max_examples=60)
def test_contexts_show_what_stood_there(world: World, batch: int) -> None:
    layout = world.layout
    frame = contexts(world.gathered(batch), world.batches(batch), layout, WANTED)
    for row in frame.itertuples():
        document_start = int(layout.offset_U[np.flatnonzero(layout.document_U == row.document)[0]])
        shown = slice(document_start + row.start, document_start + row.start + len(row.tokens))
        assert list(row.tokens) == layout.token_T[shown].tolist()
        np.testing.assert_array_equal(row.activations, world.f_TF[shown, row.latent])
        assert row.activation == world.f_TF[document_start + row.position, row.latent] > 0
        assert abs(row.position - row.start) <= WANTED.context_tokens
        assert len({row.start // 4, row.position // 4, (row.start + len(row.tokens) - 1) // 4}) == 1
    windows = frame.assign(window=frame["position"] // 4).groupby(["latent", "kind", "document", "window"])
    assert (windows.size() <= 1).all(), "one context a window, so no sentence fills the list"


def test_quantiles_are_cut_from_the_sample_in_equal_parts() -> None:
    n = 40
    values = np.random.default_rng(0).permutation(n).astype(np.float32) + 1
    rows = np.arange(n)
    entries = Entries(np.zeros(n, dtype=np.int64), random_score(np.zeros(n), rows, seed=0), values, rows, rows)
    found = by_quantile(entries, Wanted(top=1, quantiles=5, a_quantile=3, context_tokens=2))
    expected = ((found.entries.value - 1) * 5 // n).astype(int)
    assert found.quantile.tolist() == expected.tolist()
    assert np.bincount(found.quantile).tolist() == [3] * 5
    assert found.rank.tolist() == [0, 1, 2] * 5


def test_the_sample_is_uniform_over_firings() -> None:
    """Each of 50 windows with one firing is kept in about 8 of 50 draws over many seeds."""
    f_TF = torch.ones(50, 1)
    layout = Layout.of(range(50), [np.array([1])] * 50, window_tokens=4)
    wanted = Wanted(top=1, quantiles=2, a_quantile=1, context_tokens=1)
    kept: defaultdict[int, int] = defaultdict(int)
    for seed in range(400):
        batch = CodedBatch(np.arange(50), Codes.from_dense(f_TF))
        for row in gather([batch], layout, wanted, latents=1, seed=seed).sample.token.tolist():
            kept[row] += 1
    counts = np.array([kept[row] for row in range(50)])
    assert counts.sum() == 400 * 8
    chi_square = ((counts - 64) ** 2 / 64).sum()
    assert chi_square < 90, "49 degrees of freedom: 85 is the 99.9 % quantile, and sampling is without replacement"


def test_the_favourite_token_is_the_one_it_fires_on_most() -> None:
    layout = Layout.of([3], [np.array([5, 7, 7, 9])], window_tokens=1)
    rows = np.arange(4)
    value = np.array([9.0, 1.0, 1.0, 2.0], dtype=np.float32)
    entries = Entries(np.array([2, 2, 2, 4]), value.astype(float), value, rows, rows)
    assert favourite_tokens(entries, layout) == {2: 7, 4: 9}


def test_ties_between_favourite_tokens_go_to_the_stronger() -> None:
    layout = Layout.of([0], [np.array([5, 7])], window_tokens=1)
    value = np.array([1.0, 2.0], dtype=np.float32)
    entries = Entries(np.array([0, 0]), value.astype(float), value, np.arange(2), np.arange(2))
    assert favourite_tokens(entries, layout) == {0: 7}


def test_logit_effects_are_the_extremes_of_the_full_product() -> None:
    generator = torch.Generator().manual_seed(0)
    W_dec, unembedding = torch.randn(7, 4, generator=generator), torch.randn(4, 11, generator=generator)
    parts = list(logit_effects(lambda rows: rows @ unembedding, W_dec, 3, vocabulary=1 << 23))
    assert len(parts) == 4, "two latents a chunk at this vocabulary"
    full = W_dec @ unembedding
    raised = torch.cat([part.raised_FN for part in parts])
    lowered = torch.cat([part.lowered_logit_FN for part in parts])
    assert raised.tolist() == full.argsort(1, descending=True)[:, :3].tolist()
    torch.testing.assert_close(lowered, full.sort(1).values[:, :3])
