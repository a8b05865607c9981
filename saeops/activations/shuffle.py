"""Token-shuffled batches from a set of any size, in bounded memory, from any step on.

An epoch is one long stream: the set is cut into small pieces, the pieces are permuted, and as many
as fit the buffer are read and their tokens permuted together. Batch n is tokens n·size to
(n+1)·size of the endless stream of epochs, so every epoch is a permutation of all tokens, and any
step can be reached from the seed alone.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from saeops.activations.reader import Shard
from saeops.activations.schema import TokenBatch, concatenate, empty_like, in_fp32, put, take
from saeops.errors import StageMissing

LARGEST_PIECE = 1024


@runtime_checkable
class Shards(Protocol):
    """What is shuffled; an ActivationSet is one."""

    def count(self, site: str, split: str) -> int: ...

    def shard_list(self, site: str, split: str) -> list[Shard]: ...

    def read(self, shard: Shard, start: int = 0, stop: int | None = None) -> TokenBatch: ...


@dataclass(frozen=True)
class Piece:
    """Consecutive tokens of one shard."""

    shard: Shard
    start: int
    stop: int


@dataclass(frozen=True)
class Epoch:
    """How one epoch's pieces are grouped into buffers."""

    buffers: tuple[tuple[Piece, ...], ...]
    ends: tuple[int, ...]
    """Stream position, within the epoch, at which each buffer ends."""


class ShuffledTokens:
    """Endless token-shuffled fp32 batches of one site and split.

    Args:
        buffer_tokens: most tokens held at once; larger mixes better.
        start_step: the first batch given is the one that an unbroken iteration gives at this step.

    Raises:
        StageMissing: the split holds no tokens at this site.
    """

    def __init__(
        self,
        acts: Shards,
        site: str,
        split: str = "train",
        *,
        batch_size: int,
        buffer_tokens: int,
        seed: int,
        start_step: int = 0,
    ) -> None:
        self.tokens = acts.count(site, split)
        if self.tokens == 0:
            raise StageMissing(f"no {split} tokens at {site}", hint="run `saeops harvest` with more tokens")
        self._acts = acts
        self._batch_size = batch_size
        self._buffer_tokens = buffer_tokens
        self._seed = seed
        self._start_step = start_step
        # At least 32 pieces a buffer, so that a buffer draws from all over the set.
        size = max(1, min(LARGEST_PIECE, buffer_tokens // 32))
        self._pieces = [
            Piece(shard, start, min(start + size, shard.tokens))
            for shard in acts.shard_list(site, split)
            for start in range(0, shard.tokens, size)
        ]
        self._epoch = lru_cache(maxsize=2)(self._plan)

    def __iter__(self) -> Iterator[TokenBatch]:
        position = self._start_step * self._batch_size
        held: tuple[int, int] | None = None
        buffer: TokenBatch | None = None
        while True:
            parts: list[TokenBatch] = []
            missing = self._batch_size
            while missing:
                epoch, offset = divmod(position, self.tokens)
                ends = self._epoch(epoch).ends
                number = bisect_right(ends, offset)
                if held != (epoch, number) or buffer is None:
                    # Let go of the old buffer first: two at once would break the bound.
                    buffer = None
                    buffer, held = self._load(epoch, number), (epoch, number)
                begin = offset - (ends[number] - len(buffer))
                part = take(buffer, slice(begin, begin + missing))
                parts.append(part)
                missing -= len(part)
                position += len(part)
            yield in_fp32(concatenate(parts))

    def _plan(self, epoch: int) -> Epoch:
        order = np.random.default_rng((self._seed, epoch)).permutation(len(self._pieces))
        buffers: list[list[Piece]] = [[]]
        held = 0
        for index in order:
            piece = self._pieces[index]
            if held and held + piece.stop - piece.start > self._buffer_tokens:
                buffers.append([])
                held = 0
            buffers[-1].append(piece)
            held += piece.stop - piece.start
        sizes = [sum(piece.stop - piece.start for piece in buffer) for buffer in buffers]
        return Epoch(tuple(map(tuple, buffers)), tuple(accumulate(sizes)))

    def _load(self, epoch: int, number: int) -> TokenBatch:
        pieces = self._epoch(epoch).buffers[number]
        size = sum(piece.stop - piece.start for piece in pieces)
        # Seeds are padded with zeros: one more keeps this stream apart from the epoch's own.
        generator = np.random.default_rng((self._seed, epoch, number + 1))
        places = torch.from_numpy(generator.permutation(size))
        buffer: TokenBatch | None = None
        begin = 0
        # In file order, which is sequential; each piece goes straight to its places, so that never
        # more than the buffer and one piece are held.
        for piece in sorted(pieces, key=lambda piece: (piece.shard.name, piece.start)):
            part = self._acts.read(piece.shard, piece.start, piece.stop)
            buffer = empty_like(part, size) if buffer is None else buffer
            put(part, buffer, places[begin : begin + len(part)])
            begin += len(part)
        assert buffer is not None
        return buffer
