"""The shuffler: every epoch a permutation, any step from the seed alone, memory bounded."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saeops.activations.reader import ActivationSet, Shard
from saeops.activations.schema import TokenBatch
from saeops.activations.shuffle import ShuffledTokens
from saeops.errors import StageMissing


@dataclass
class Counted:
    """Shards of numbered tokens, in memory, that count what is read."""

    sizes: list[int]
    read_tokens: int = 0

    def shard_list(self, site: str, split: str) -> list[Shard]:
        return [Shard(f"{site}/{split}-{n:05d}", size) for n, size in enumerate(self.sizes)]

    def count(self, site: str, split: str) -> int:
        return sum(shard.tokens for shard in self.shard_list(site, split))

    def read(self, shard: Shard, start: int = 0, stop: int | None = None) -> TokenBatch:
        assert stop is not None
        self.read_tokens += stop - start
        first = sum(self.sizes[: int(shard.name[-5:])])
        token = torch.arange(first + start, first + stop, dtype=torch.int32)
        return TokenBatch(token[:, None].to(torch.float16), token // 7, token % 7, token)


def shuffled(acts: Counted | ActivationSet, **more: Any) -> ShuffledTokens:
    usual = {"batch_size": 5, "buffer_tokens": 40, "seed": 0}
    return ShuffledTokens(acts, "site", **(usual | more))


def tokens(batches: Iterator[TokenBatch], count: int) -> list[list[int]]:
    return [batch.token.tolist() for batch in islice(batches, count)]


SIZES = st.lists(st.integers(1, 50), min_size=1, max_size=5)


@given(sizes=SIZES, batch_size=st.integers(1, 30), buffer_tokens=st.integers(1, 120), seed=st.integers(0, 9))
def test_every_epoch_is_a_permutation_of_all_tokens(
    sizes: list[int], batch_size: int, buffer_tokens: int, seed: int
) -> None:
    total = sum(sizes)
    stream = shuffled(Counted(sizes), batch_size=batch_size, buffer_tokens=buffer_tokens, seed=seed)
    given_ = list(chain.from_iterable(tokens(iter(stream), -(-2 * total // batch_size))))
    for epoch in range(2):
        assert sorted(given_[epoch * total : (epoch + 1) * total]) == list(range(total))


@given(sizes=SIZES, batch_size=st.integers(1, 30), buffer_tokens=st.integers(1, 120), start=st.integers(0, 40))
def test_starting_at_a_step_gives_what_an_unbroken_iteration_gives_there(
    sizes: list[int], batch_size: int, buffer_tokens: int, start: int
) -> None:
    choices = {"batch_size": batch_size, "buffer_tokens": buffer_tokens}
    unbroken = tokens(iter(shuffled(Counted(sizes), **choices)), start + 4)
    resumed = tokens(iter(shuffled(Counted(sizes), **choices, start_step=start)), 4)
    assert resumed == unbroken[start:]


@given(sizes=SIZES, buffer_tokens=st.integers(1, 120))
def test_no_buffer_holds_more_than_it_may(sizes: list[int], buffer_tokens: int) -> None:
    acts = Counted(sizes)
    stream = iter(shuffled(acts, batch_size=1, buffer_tokens=buffer_tokens))
    before = 0
    for _ in range(sum(sizes)):
        next(stream)
        assert acts.read_tokens - before <= buffer_tokens
        before = acts.read_tokens


def test_rows_stay_together() -> None:
    for batch in islice(shuffled(Counted([30, 20])), 10):
        assert batch.activations[:, 0].tolist() == batch.token.tolist()
        assert (batch.document * 7 + batch.position).tolist() == batch.token.tolist()
        assert batch.activations.dtype == torch.float32


def test_tokens_are_mixed_within_and_across_shards() -> None:
    batches = tokens(iter(shuffled(Counted([500, 500]), buffer_tokens=500)), 200)
    order = list(chain.from_iterable(batches))
    neighbours = sum(abs(a - b) == 1 for a, b in pairwise(order))
    assert neighbours < 50
    assert {token // 500 for token in order[:50]} == {0, 1}


def test_epochs_and_seeds_differ() -> None:
    stream = tokens(iter(shuffled(Counted([100]), batch_size=100)), 2)
    assert stream[0] != stream[1]
    assert stream[0] != tokens(iter(shuffled(Counted([100]), batch_size=100, seed=1)), 1)[0]


def test_it_streams_a_harvested_set(tiny_activations: ActivationSet) -> None:
    site = tiny_activations.sites[0]
    total = tiny_activations.count(site, "train")
    stream = ShuffledTokens(tiny_activations, site, batch_size=total, buffer_tokens=1000, seed=0)
    epoch = next(iter(stream))
    places = set(zip(epoch.document.tolist(), epoch.position.tolist(), strict=True))
    assert len(places) == total
    assert not torch.equal(epoch.document, epoch.document.sort().values)


def test_a_split_without_tokens_is_refused() -> None:
    with pytest.raises(StageMissing, match="no train tokens"):
        shuffled(Counted([]))
