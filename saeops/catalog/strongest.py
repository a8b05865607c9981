"""The best firings of each latent, from a stream, exactly, each with what the latent does round it.

Memory is latents × what is kept, however many tokens pass. The compiled kernel (saeops/sae/native/strongest.cpp)
does the same as `keep`.

# F latent, S slot kept a latent, W token shown, T token, N entry (one latent firing on one token), E kept entry
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float, Int

Array = np.ndarray


@dataclass(frozen=True)
class Fired:
    """Every firing on some consecutive tokens that make whole windows."""

    latent: Int[Array, " N"]
    token: Int[Array, " N"]
    """Ascending."""
    value: Float[Array, " N"]
    row_T: Int[Array, " T"]
    window_T: Int[Array, " T"]

    @property
    def row(self) -> Int[Array, " N"]:
        return self.row_T[self.token]

    @property
    def window(self) -> Int[Array, " N"]:
        return self.window_T[self.token]


@dataclass(frozen=True)
class Entries:
    """Kept firings: which latent, in which of its slots, with what score, how strongly, and on which row."""

    latent: Int[Array, " E"]
    slot: Int[Array, " E"]
    score: Float[Array, " E"]
    value: Float[Array, " E"]
    row: Int[Array, " E"]

    def __getitem__(self, pick: Array) -> Self:
        return type(self)(*(column[pick] for column in vars(self).values()))


@dataclass(frozen=True)
class Kept:
    """The best firings of each latent so far, at most one a window; slots are in no order."""

    score_FS: Float[Array, "F S"]
    """−infinity where the slot is empty."""
    row_FS: Int[Array, "F S"]
    """−1 where the slot is empty."""
    shown_FSW: Float[Array, "F S W"]
    """The latent's activation on the rows round the firing, which is in the middle; 0 outside its window."""

    @classmethod
    def empty(cls, latents: int, slots: int, *, context_tokens: int) -> Self:
        shown = np.zeros((latents, slots, 2 * context_tokens + 1), dtype=np.float32)
        return cls(np.full((latents, slots), -np.inf), np.full((latents, slots), -1), shown)

    @property
    def context_tokens(self) -> int:
        return self.shown_FSW.shape[2] // 2

    def entries(self) -> Entries:
        """What is kept, ordered by latent, then from the best down; the earlier row wins a tie."""
        slot_FS = np.lexsort((self.row_FS, -self.score_FS))
        filled_FS = np.take_along_axis(self.row_FS, slot_FS, axis=1) >= 0
        latent, slot = np.nonzero(filled_FS)[0], slot_FS[filled_FS]
        value = self.shown_FSW[latent, slot, self.context_tokens]
        return Entries(latent, slot, self.score_FS[latent, slot], value, self.row_FS[latent, slot])

    def shown(self, entries: Entries) -> Float[Array, "E W"]:
        """What is shown round each."""
        return self.shown_FSW[entries.latent, entries.slot]


def keep(kept: Kept, fired: Fired, score: Float[Array, " N"]) -> None:
    """Add whole windows, of rows after all those added before, in place."""
    latent, row, window = fired.latent, fired.row, fired.window
    # Only what beats the weakest can enter: a later row loses against an equal one.
    beats = np.flatnonzero(score > kept.score_FS.min(1)[latent])
    order = beats[np.lexsort((row[beats], -score[beats], window[beats], latent[beats]))]
    best = order[_first_of_run(latent[order], window[order])]
    round_best = _round(best, fired, kept.context_tokens)
    touched, inverse = np.unique(latent[best], return_inverse=True)
    old = Kept(kept.score_FS[touched], kept.row_FS[touched], kept.shown_FSW[touched])
    held = old.entries()
    # Old and new together, by place in `touched`.
    place = np.concatenate([held.latent, inverse])
    scores, rows = np.concatenate([held.score, score[best]]), np.concatenate([held.row, row[best]])
    shown = np.concatenate([old.shown(held), round_best])
    order = np.lexsort((rows, -scores, place))
    rank = rank_in_run(place[order])
    order, rank = order[rank < kept.row_FS.shape[1]], rank[rank < kept.row_FS.shape[1]]
    into = (touched[place[order]], rank)
    kept.score_FS[into], kept.row_FS[into], kept.shown_FSW[into] = scores[order], rows[order], shown[order]


def _round(best: Int[Array, " E"], fired: Fired, context_tokens: int) -> Float[Array, "E W"]:
    """What the latents of some entries do on the rows round them, inside the window."""
    latent, row, window = fired.latent, fired.row, fired.window
    sorted_by_key = np.lexsort((row, latent))
    span = int(row.max(initial=0)) + context_tokens + 1
    key = (latent * span + row)[sorted_by_key]
    wanted_row = row[best, None] + np.arange(-context_tokens, context_tokens + 1)
    wanted = latent[best, None] * span + wanted_row
    place = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
    found = sorted_by_key[place] if len(key) else place
    hit = (wanted_row >= 0) & (key[place] == wanted) & (window[found] == window[best, None])
    return np.where(hit, fired.value[found], np.float32(0))


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


def random_score(latent: Int[Array, " E"], row: Int[Array, " E"], *, seed: int) -> Float[Array, " E"]:
    """A score in [0, 1) that depends on latent, row and seed alone (splitmix64).

    The n largest of such scores are a uniform sample without replacement,
    whatever batches the stream came in.
    """
    mixed = _splitmix(np.asarray(row, dtype=np.uint64) ^ _splitmix(np.asarray(latent, dtype=np.uint64)))
    mixed = _splitmix(mixed ^ _splitmix(np.asarray([seed], dtype=np.uint64)))
    return (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53


def _splitmix(x: Array) -> Array:
    """Steele, Lea & Flood 2014, Fast splittable pseudorandom number generators."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
