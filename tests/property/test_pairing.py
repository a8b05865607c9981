"""Pairs of sites: the same tokens in one shuffled order, and a refusal of anything else (field notes, trap 9)."""

from dataclasses import dataclass
from itertools import chain, islice, pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saeops.activations.pairing import PairedTokens, batches_in_order, check_shards, shuffled_batches
from saeops.activations.reader import ActivationSet, Shard
from saeops.activations.schema import TokenBatch
from saeops.activations.sites import Sites
from saeops.adapters.corpora import open_corpus
from saeops.adapters.models import TransformersModel
from saeops.errors import SitesUnpaired, SiteUnknown
from saeops.refs import Workspace
from saeops.stages import harvest
from tests.tiny import RecordingWatch, tiny_params

READS, WRITES = "blocks.0.resid_post", "blocks.1.mlp_out"
SITES = Sites(READS, WRITES)


@dataclass
class TwoSites:
    """Shards of numbered tokens in memory, at any site; the target's may be bent out of shape."""

    sizes: list[int]
    target_sizes: list[int] | None = None
    swapped: bool = False
    """Two neighbouring tokens stand the other way round at the target."""

    def _sizes(self, site: str) -> list[int]:
        return self.target_sizes if site == WRITES and self.target_sizes is not None else self.sizes

    def shard_list(self, site: str, split: str) -> list[Shard]:
        return [Shard(f"{site}/{split}-{n:05d}", size) for n, size in enumerate(self._sizes(site))]

    def count(self, site: str, split: str) -> int:
        return sum(self._sizes(site))

    def read(self, shard: Shard, start: int = 0, stop: int | None = None) -> TokenBatch:
        stop = shard.tokens if stop is None else stop
        first = sum(self.sizes[: int(shard.name[-5:])])
        number = torch.arange(first + start, first + stop, dtype=torch.int32)
        if self.swapped and shard.name.startswith(WRITES):
            number = torch.where(number == 3, 4, torch.where(number == 4, 3, number)).to(torch.int32)
        sign = -1.0 if shard.name.startswith(WRITES) else 1.0
        return TokenBatch(sign * number[:, None].float(), number // 7, number % 7, number)


SIZES = st.lists(st.integers(1, 50), min_size=1, max_size=5)


@settings(max_examples=25)
@given(
    sizes=SIZES,
    batch_size=st.integers(1, 30),
    buffer_tokens=st.integers(1, 120),
    seed=st.integers(0, 9),
    start=st.integers(0, 30),
)
def test_both_sites_come_in_one_order_from_any_step_on(
    sizes: list[int], batch_size: int, buffer_tokens: int, seed: int, start: int
) -> None:
    choices = {"batch_size": batch_size, "buffer_tokens": buffer_tokens, "seed": seed}
    unbroken = list(islice(shuffled_batches(TwoSites(sizes), SITES, **choices), start + 3))
    for batch in unbroken:
        assert torch.equal(batch.y_TE, -batch.x_TD)
        assert torch.equal(batch.x_TD[:, 0].int(), batch.tokens.token)
    resumed = islice(shuffled_batches(TwoSites(sizes), SITES, **choices, start_step=start), 3)
    for batch, expected in zip(resumed, unbroken[start:], strict=True):
        assert torch.equal(batch.x_TD, expected.x_TD)


def test_tokens_are_shuffled_and_not_sequences() -> None:
    """Neighbours of a document are spread out, at both sites alike."""
    batches = islice(shuffled_batches(TwoSites([700]), SITES, batch_size=70, buffer_tokens=700, seed=0), 10)
    order = torch.cat([batch.y_TE[:, 0] for batch in batches]).neg().int().tolist()
    assert sorted(order) == list(range(700))
    assert sum(abs(a - b) == 1 for a, b in pairwise(order)) < 20
    documents = [number // 7 for number in order]
    assert sum(a == b for a, b in pairwise(documents)) < 30


def test_an_autoencoders_target_is_the_very_tensor_of_its_input() -> None:
    one = Sites.of(READS, None)
    assert not one.transcodes
    batch = next(shuffled_batches(TwoSites([20]), one, batch_size=5, buffer_tokens=20, seed=0))
    assert batch.y_TE is batch.x_TD


def test_sites_with_other_shards_are_refused_before_anything_is_read() -> None:
    with pytest.raises(SitesUnpaired, match=r"hold 30 and 29\s+tokens in 2 and 2 files"):
        shuffled_batches(TwoSites([20, 10], [20, 9]), SITES, batch_size=5, buffer_tokens=20, seed=0)
    with pytest.raises(SitesUnpaired, match="in 2 and 1 files"):
        check_shards(TwoSites([20, 10], [30]), SITES, "train")


def test_rows_that_are_not_the_same_token_are_refused_by_document_and_position() -> None:
    stream = shuffled_batches(TwoSites([9], swapped=True), SITES, batch_size=9, buffer_tokens=9, seed=0)
    with pytest.raises(SitesUnpaired, match=r"holds document 0, position (3|4) where .* position (4|3)") as caught:
        next(stream)
    assert "saeops harvest" in caught.value.hint


# ── a real harvest ──────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def harvested(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: TransformersModel, tiny_corpus: Path
) -> ActivationSet:
    """Two sites of the tiny model, with norm limits low enough that each leaves other tokens out."""
    space = Workspace(root=tmp_path_factory.mktemp("paired"))
    params = tiny_params(
        corpus={"path": str(tiny_corpus)},
        harvest={
            "sites": [READS, WRITES],
            "tokens": 16_000,
            "dtype": "float32",
            "policy": {"max_norm_ratio": 1.3},
        },
        train={"site": READS, "target_site": WRITES},
    )
    harvest.run(params, space, model=tiny_model, corpus=open_corpus(params.corpus), watch=RecordingWatch())
    return ActivationSet.open(space.activations)


def expected_at(model: TransformersModel, acts: ActivationSet, batch: PairedTokens, row: int) -> dict[str, Tensor]:
    """What the model itself gives at both sites for one row, one window at a time."""
    document, position = int(batch.tokens.document[row]), int(batch.tokens.position[row])
    ids = acts.documents.set_index("document").loc[document, "tokens"]
    start = position // 31 * 31
    window = torch.tensor([[0, *ids[start : start + 31]]])
    return {site: x[0, position - start + 1] for site, x in model.capture(window, [READS, WRITES]).items()}


def test_a_harvested_pair_is_what_the_model_computes_for_one_and_the_same_token(
    harvested: ActivationSet, tiny_model: TransformersModel
) -> None:
    shuffled = islice(shuffled_batches(harvested, SITES, batch_size=50, buffer_tokens=500, seed=1), 6)
    for batch in chain(shuffled, islice(batches_in_order(harvested, SITES, "eval", 50), 4)):
        expected = expected_at(tiny_model, harvested, batch, 7)
        torch.testing.assert_close(batch.x_TD[7], expected[READS], atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(batch.y_TE[7], expected[WRITES], atol=1e-3, rtol=1e-3)


def test_a_token_that_is_an_outlier_at_one_site_is_left_out_at_both(harvested: ActivationSet) -> None:
    assert harvested.sealed.summary["dropped"]["outlier_tokens"] > 100
    for split in ("train", "eval"):
        check_shards(harvested, SITES, split)
        batches = list(batches_in_order(harvested, SITES, split, 200))
        for site, tensors in ((READS, [b.x_TD for b in batches]), (WRITES, [b.y_TE for b in batches])):
            limit = harvested.norm_limit(site)
            assert limit is not None
            assert float(torch.cat(tensors).norm(dim=1).max()) <= limit * 1.0001


def test_a_shuffled_epoch_of_a_real_set_holds_every_token_once_and_no_sequence(harvested: ActivationSet) -> None:
    total = harvested.count(READS, "train")
    epoch = next(shuffled_batches(harvested, SITES, batch_size=total, buffer_tokens=total, seed=0)).tokens
    places = list(zip(epoch.document.tolist(), epoch.position.tolist(), strict=True))
    assert len(set(places)) == total
    follows = sum(a[0] == b[0] and b[1] - a[1] == 1 for a, b in pairwise(places))
    assert follows < total / 20


def test_a_site_that_was_not_harvested_is_named(harvested: ActivationSet) -> None:
    with pytest.raises(SiteUnknown, match=r"blocks\.2\.mlp_out"):
        batches_in_order(harvested, Sites(READS, "blocks.2.mlp_out"), "eval", 10)


def test_a_pass_that_edits_the_target_sees_the_input_of_the_same_pass(tiny_model: TransformersModel) -> None:
    ids = torch.randint(2, 300, (2, 9), generator=torch.Generator().manual_seed(0))
    expected = tiny_model.capture(ids, [READS, WRITES])
    seen: dict[str, Tensor] = {}

    def double(x_BWD: Tensor, y_BWE: Tensor) -> Tensor:
        seen.update({READS: x_BWD, WRITES: y_BWE})
        return 2 * y_BWE

    edited = tiny_model.logits(ids, SITES.edits(double))
    for site in (READS, WRITES):
        torch.testing.assert_close(seen[site], expected[site])
    torch.testing.assert_close(edited, tiny_model.logits(ids, {WRITES: lambda y: 2 * y}))
    assert not torch.equal(edited, tiny_model.logits(ids))
    unchanged = tiny_model.logits(ids, SITES.edits(lambda _, y: y))
    assert torch.equal(unchanged, tiny_model.logits(ids))
