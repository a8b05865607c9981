"""The streamed catalog, compiled and in plain numpy, held to a brute-force oracle (field notes, trap 13)."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from saeops.activations.reader import ActivationSet
from saeops.catalog.build import build_catalog
from saeops.catalog.contexts import contexts
from saeops.catalog.gather import Gathered, Wanted, by_quantile, favourite_tokens, gather
from saeops.catalog.layout import Layout
from saeops.catalog.logits import logit_effects
from saeops.catalog.neighbours import nearest
from saeops.catalog.strongest import Entries, Kept, random_score
from saeops.catalog.windows import CodedBatch, whole_windows
from saeops.sae.canonical import Sae, SaeMeta
from saeops.sae.codes import Codes
from saeops.sae.native import library
from saeops.sae.native.build import NotBuilt

F = 6
WANTED = Wanted(top=3, quantiles=2, a_quantile=2, context_tokens=2)


@pytest.fixture(scope="module", params=["plain", "compiled"], autouse=True)
def kernels(request: pytest.FixtureRequest, kernels_folder: Path) -> Iterator[str]:
    """Every test runs with the compiled kernel and without."""
    if request.param == "compiled":
        found = library.enable(kernels_folder)
        if isinstance(found, NotBuilt):
            pytest.skip(found.reason)
    yield request.param
    library.disable()


class World:
    """A few documents with dense latent activations; masked tokens have none at all."""

    def __init__(self, seed: int, *, ties: bool) -> None:
        generator = np.random.default_rng(seed)
        documents = sorted(generator.choice(50, size=int(generator.integers(1, 6)), replace=False).tolist())
        tokens = [generator.integers(0, 9, size=int(generator.integers(1, 24))) for _ in documents]
        self.window_tokens = int(generator.integers(1, 9))
        self.layout = Layout.of(documents, tokens, window_tokens=self.window_tokens)
        rows = len(self.layout.token_T)
        values = generator.integers(1, 3, (rows, F)) if ties else generator.random((rows, F)) + 0.1
        f_TF = np.where(generator.random((rows, F)) < 0.4, values, 0).astype(np.float32)
        f_TF[:, 0] = 0  # a dead latent
        self.rows = np.flatnonzero(generator.random(rows) < 0.9)
        self.f_TF = f_TF * np.isin(np.arange(rows), self.rows)[:, None]
        self.window = self.layout.window_start(np.arange(rows))

    def batches(self, size: int) -> list[CodedBatch]:
        parts = [self.rows[i : i + size] for i in range(0, len(self.rows), size)]
        dense = [torch.from_numpy(self.f_TF[rows]) for rows in parts]
        return [
            CodedBatch(rows, self.window[rows], Codes.from_dense(f_TF))
            for rows, f_TF in zip(parts, dense, strict=True)
        ]

    def gathered(self, size: int, wanted: Wanted = WANTED, *, seed: int = 0) -> Gathered:
        return gather(self.batches(size), wanted, latents=F, seed=seed)

    def firings(self, latent: int) -> list[int]:
        return [int(row) for row in self.rows if self.f_TF[row, latent] > 0]


worlds = st.builds(World, st.integers(0, 2**31), ties=st.booleans())
sizes = st.integers(1, 40)
seeds = st.integers(0, 2**40)

Found = dict[int, list[tuple[int, float]]]


def brute_force(world: World, n: int, score: dict[tuple[int, int], float]) -> Found:
    """For each latent: the best row of each window, then the n best of those; the earlier row wins a tie."""
    found = {}
    for latent in range(F):
        best: dict[int, int] = {}
        for row in world.firings(latent):
            window = int(world.window[row])
            if window not in best or score[latent, row] > score[latent, best[window]]:
                best[window] = row
        ordered = sorted(best.values(), key=lambda row: (-score[latent, row], row))[:n]
        found[latent] = [(row, float(world.f_TF[row, latent])) for row in ordered]
    return found


def by_latent(kept: Kept) -> Found:
    found: Found = {latent: [] for latent in range(F)}
    entries = kept.entries()
    for latent, row, value in zip(
        entries.latent.tolist(), entries.row.tolist(), entries.value.tolist(), strict=True
    ):
        found[latent].append((row, value))
    return found


@given(worlds, sizes, st.integers(1, 5))
@settings(max_examples=150)
def test_top_contexts_equal_a_brute_force_search(world: World, batch: int, n: int) -> None:
    wanted = Wanted(top=n, quantiles=2, a_quantile=2, context_tokens=2)
    strength = {(f, int(row)): float(world.f_TF[row, f]) for f in range(F) for row in world.rows}
    assert by_latent(world.gathered(batch, wanted).top) == brute_force(world, n, strength)


@given(worlds, sizes, seeds)
@settings(max_examples=150)
def test_samples_are_those_of_the_best_random_scores_however_the_stream_was_cut(
    world: World, batch: int, seed: int
) -> None:
    score = {
        (f, int(row)): float(random_score(np.array([f]), np.array([row]), seed=seed)[0])
        for f in range(F)
        for row in world.rows
    }
    found = by_latent(world.gathered(batch, seed=seed).sample)
    assert found == brute_force(world, WANTED.sampled, score)


@given(worlds, sizes)
def test_counts_and_sums_are_the_dense_ones(world: World, batch: int) -> None:
    gathered = world.gathered(batch)
    assert gathered.tokens == len(world.rows)
    assert gathered.n_active_F.tolist() == (world.f_TF > 0).sum(0).tolist()
    np.testing.assert_allclose(gathered.sum_F, world.f_TF.sum(0), rtol=1e-5)
    np.testing.assert_array_equal(gathered.max_F, world.f_TF.max(0, initial=0))


@given(worlds, sizes, st.integers(0, 6))
@settings(max_examples=100)
def test_contexts_show_what_stood_there(world: World, batch: int, context_tokens: int) -> None:
    layout, wanted = world.layout, Wanted(top=3, quantiles=2, a_quantile=2, context_tokens=context_tokens)
    frame = contexts(world.gathered(batch, wanted), layout, wanted)
    for row in frame.itertuples():
        document_start = int(layout.offset_U[np.flatnonzero(layout.document_U == row.document)[0]])
        own = document_start + row.position
        window = np.flatnonzero(world.window == world.window[own])
        shown = window[np.abs(window - own) <= context_tokens]
        assert document_start + row.start == shown[0]
        assert list(row.tokens) == layout.token_T[shown].tolist()
        np.testing.assert_array_equal(row.activations, world.f_TF[shown, row.latent])
        assert row.activation == world.f_TF[own, row.latent] > 0
    windows = frame.assign(window=frame["position"] // world.window_tokens)
    counted = windows.groupby(["latent", "kind", "document", "window"]).size()
    assert (counted <= 1).all(), "one context a window, so no sentence fills the list"


@given(worlds, sizes)
def test_contexts_come_as_a_reader_wants_them(world: World, batch: int) -> None:
    frame = contexts(world.gathered(batch), world.layout, WANTED)
    keys = list(zip(frame["latent"], frame["kind"] != "top", -frame["quantile"], frame["rank"], strict=True))
    assert keys == sorted(keys)
    top = frame[frame["kind"] == "top"]
    assert (top["quantile"] == -1).all()
    assert (top.groupby("latent")["activation"].diff().dropna() <= 0).all()


@given(worlds, sizes)
def test_no_batch_of_whole_windows_cuts_one(world: World, size: int) -> None:
    batches = list(whole_windows(world.batches(size)))
    windows = [set(batch.window_T.tolist()) for batch in batches]
    assert sum(len(each) for each in windows) == len(set().union(*windows)), "each window is in one batch"
    if batches:
        assert np.concatenate([batch.row_T for batch in batches]).tolist() == world.rows.tolist()
        codes = Codes.concatenate([batch.codes for batch in batches])
        np.testing.assert_array_equal(codes.dense().numpy(), world.f_TF[world.rows])


def test_a_split_is_read_once_and_the_latents_of_its_catalog_are_all(tiny_activations: ActivationSet) -> None:
    site, generator = tiny_activations.sites[0], torch.Generator().manual_seed(0)
    width = tiny_activations.width(site)
    W_dec = normalize(torch.randn(64, width, generator=generator), dim=1)
    meta = SaeMeta(variant="topk", site=site, d_model=width, d_sae=64, k=4)
    sae = Sae(W_dec.t().contiguous(), torch.zeros(64), W_dec, torch.zeros(width), None, meta)
    read: list[int] = []
    made = build_catalog(tiny_activations, sae, WANTED, split="explain", seed=0, advance=read.append)
    assert sum(read) == made.gathered.tokens == tiny_activations.count(site, "explain")
    codes = sae.encode(torch.cat([b.activations for b in tiny_activations.batches(site, "explain", 999)]))
    assert made.gathered.n_active_F.tolist() == torch.bincount(codes.latent, minlength=64).tolist()
    assert set(made.contexts["latent"]) == set(codes.latent.tolist())
    assert len(made.neighbours.latent_FN) == 64


@given(seeds, st.integers(1, 500), st.integers(1, 8), st.booleans())
@settings(max_examples=40)
def test_neighbours_are_those_of_the_whole_matrix_of_cosines(seed: int, latents: int, n: int, twins: bool) -> None:
    W_dec = normalize(torch.randn(latents, 8, generator=torch.Generator().manual_seed(seed)), dim=1)
    if twins:
        W_dec = W_dec[torch.arange(latents) // 2]
    cosines = (W_dec @ W_dec.t()).fill_diagonal_(-2)
    found = nearest(W_dec, n)
    expected = cosines.sort(dim=1, descending=True).values[:, : min(n, latents - 1)]
    torch.testing.assert_close(found.cosine_FN, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(cosines.gather(1, found.latent_FN), expected, rtol=1e-5, atol=1e-5)
    assert all(len(set(row)) == len(row) for row in found.latent_FN.tolist())


def test_quantiles_are_cut_from_the_sample_in_equal_parts() -> None:
    n = 40
    values = np.random.default_rng(0).permutation(n).astype(np.float32) + 1
    rows = np.arange(n)
    entries = Entries(np.zeros(n, dtype=np.int64), rows, random_score(np.zeros(n), rows, seed=0), values, rows)
    found = by_quantile(entries, Wanted(top=1, quantiles=5, a_quantile=3, context_tokens=2))
    expected = ((found.entries.value - 1) * 5 // n).astype(int)
    assert found.quantile.tolist() == expected.tolist()
    assert np.bincount(found.quantile).tolist() == [3] * 5
    assert found.rank.tolist() == [0, 1, 2] * 5


def test_the_sample_is_uniform_over_firings() -> None:
    """Each of 50 windows with one firing is kept in about 8 of 50 draws over many seeds."""
    wanted = Wanted(top=1, quantiles=2, a_quantile=2, context_tokens=1)
    assert wanted.sampled == 8
    batch = CodedBatch(np.arange(50), np.arange(50), Codes.from_dense(torch.ones(50, 1)))
    kept: defaultdict[int, int] = defaultdict(int)
    for seed in range(400):
        for row in gather([batch], wanted, latents=1, seed=seed).sample.entries().row.tolist():
            kept[row] += 1
    counts = np.array([kept[row] for row in range(50)])
    assert counts.sum() == 400 * 8
    chi_square = ((counts - 64) ** 2 / 64).sum()
    assert chi_square < 90, "49 degrees of freedom: 85 is the 99.9 % quantile, and sampling is without replacement"


def test_the_favourite_token_is_the_one_it_fires_on_most() -> None:
    layout = Layout.of([3], [np.array([5, 7, 7, 9])], window_tokens=1)
    rows = np.arange(4)
    value = np.array([9.0, 1.0, 1.0, 2.0], dtype=np.float32)
    entries = Entries(np.array([2, 2, 2, 4]), rows, value.astype(float), value, rows)
    assert favourite_tokens(entries, layout) == {2: 7, 4: 9}


def test_ties_between_favourite_tokens_go_to_the_stronger() -> None:
    layout = Layout.of([0], [np.array([5, 7])], window_tokens=1)
    value = np.array([1.0, 2.0], dtype=np.float32)
    entries = Entries(np.array([0, 0]), np.arange(2), value.astype(float), value, np.arange(2))
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
