"""The strongest entries of each latent, from a stream, exactly.

# F latent, n entries kept a latent, N entry of a batch (one latent firing on one token), E entry to merge
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float, Int

Array = np.ndarray


@dataclass(frozen=True)
class Entries:
    """Firings: which latent, on which token, in which window, how strongly, and with what score."""

    latent: Int[Array, " E"]
    score: Float[Array, " E"]
    value: Float[Array, " E"]
    token: Int[Array, " E"]
    window: Int[Array, " E"]

    def __getitem__(self, pick: Array) -> Self:
        return type(self)(
            self.latent[pick], self.score[pick], self.value[pick], self.token[pick], self.window[pick]
        )

    @classmethod
    def joined(cls, first: Self, second: Self) -> Self:
        pairs = zip(vars(first).values(), vars(second).values(), strict=True)
        return cls(*(np.concatenate(pair) for pair in pairs))


def strongest(entries: Entries, n: int) -> Entries:
    """The n best scores of each latent, at most one a (latent, window); among equals the earliest token.

    The result is ordered by latent, then from the best down.
    """
    order = np.lexsort((entries.token, -entries.score, entries.window, entries.latent))
    entries = entries[order]
    entries = entries[_first_of_run(entries.latent, entries.window)]
    entries = entries[np.lexsort((entries.token, -entries.score, entries.latent))]
    return entries[rank_in_run(entries.latent) < n]


def rank_in_run(*keys: Int[Array, " E"]) -> Int[Array, " E"]:
    """0, 1, 2, … within each run of equal keys."""
    starts = np.flatnonzero(_first_of_run(*keys))
    lengths = np.diff(np.append(starts, len(keys[0])))
    return np.arange(len(keys[0])) - np.repeat(starts, lengths)


def _first_of_run(*keys: Int[Array, " E"]) -> Array:
    first = np.zeros(len(keys[0]), dtype=bool)
    first[:1] = True
    for key in keys:
        first[1:] |= key[1:] != key[:-1]
    return first


class Strongest:
    """`strongest` over a stream of entries in ascending token order; memory F × n."""

    def __init__(self, latents: int, n: int) -> None:
        self._score = np.full((latents, n), -np.inf)
        self._value = np.zeros((latents, n), dtype=np.float32)
        self._token = np.full((latents, n), -1, dtype=np.int64)
        self._window = np.full((latents, n), -1, dtype=np.int64)

    def add(self, entries: Entries) -> None:
        """Entries of tokens that come after all those added before."""
        n = self._score.shape[1]
        # Only what beats the weakest kept entry can enter: a later token loses against an equal one, and a
        # window's kept entry is never below the weakest.
        entries = entries[entries.score > self._score[entries.latent, n - 1]]
        if not len(entries.latent):
            return
        touched = np.zeros(len(self._score), dtype=bool)
        touched[entries.latent] = True
        latents = np.flatnonzero(touched)
        best = strongest(Entries.joined(self._kept(latents), entries), n)
        place = (best.latent, rank_in_run(best.latent))
        self._score[place], self._value[place] = best.score, best.value
        self._token[place], self._window[place] = best.token, best.window

    def entries(self) -> Entries:
        """What is kept, ordered by latent, then from the best down."""
        return self._kept(np.arange(len(self._score)))

    def _kept(self, latents: Int[Array, " F"]) -> Entries:
        filled = self._token[latents] >= 0
        latent = np.repeat(latents, filled.sum(1))
        tables = (self._score, self._value, self._token, self._window)
        return Entries(latent, *(table[latents][filled] for table in tables))


def random_score(latent: Int[Array, " E"], token: Int[Array, " E"], *, seed: int) -> Float[Array, " E"]:
    """A score in [0, 1) that depends on latent, token and seed alone (splitmix64).

    The n largest of such scores are a uniform sample without replacement,
    whatever batches the stream came in.
    """
    mixed = _splitmix(np.asarray(token, dtype=np.uint64) ^ _splitmix(np.asarray(latent, dtype=np.uint64)))
    mixed = _splitmix(mixed ^ _splitmix(np.asarray([seed], dtype=np.uint64)))
    return (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53


def _splitmix(x: Array) -> Array:
    """Steele, Lea & Flood 2014, Fast splittable pseudorandom number generators."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
