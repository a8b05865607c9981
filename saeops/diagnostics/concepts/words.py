"""Words: tokens that begin one, its first letter, and which words a probe may learn from.

# T token, V token id
"""

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from jaxtyping import Int

Array = np.ndarray
Texts = Callable[[Sequence[int]], list[str]]
"""Token ids → the text each stands for."""
Part = Literal["learn", "test"]
"""Half of all words: those that probes and main latents are chosen on, or those they are tested on."""

LETTERS = "abcdefghijklmnopqrstuvwxyz"
NO_WORD = -1

_WORD = re.compile(r"[ ▁]([A-Za-z]{3,})")


@dataclass(frozen=True)
class Vocabulary:
    """What the token ids of a text spell."""

    id_V: Int[Array, " V"]
    """Ascending."""
    text_V: tuple[str, ...]
    letter_V: Int[Array, " V"]
    """First letter (0 … 25) of the word that the token begins, or `NO_WORD`."""
    word_V: Int[Array, " V"]
    """The same number for the same word in any case."""
    tested_V: Int[Array, " V"]
    """1 where the word belongs to the `test` half."""

    @classmethod
    def of(cls, id_T: Int[Array, " T"], texts: Texts) -> Self:
        """Of the ids that occur; a token begins a word if it is a space and at least three Latin letters."""
        id_V = np.unique(id_T)
        text_V = texts(id_V.tolist())
        found = [_WORD.fullmatch(text) for text in text_V]
        words = ["" if match is None else match[1].lower() for match in found]
        letters = [LETTERS.index(word[0]) if word else NO_WORD for word in words]
        _, word_V = np.unique(words, return_inverse=True)
        tested = [zlib.crc32(word.encode()) % 2 for word in words]
        return cls(id_V, tuple(text_V), np.array(letters), word_V, np.array(tested))

    def place(self, id_T: Int[Array, " T"]) -> Int[Array, " T"]:
        """Where each id stands among `id_V`."""
        return np.searchsorted(self.id_V, id_T)

    def letters(self, id_T: Int[Array, " T"], part: Part, *, seed: int, occurrences: int = 1) -> Int[Array, " T"]:
        """First letter of each token that begins a word of this half, else `NO_WORD`.

        Of each word so many occurrences are drawn at random, and the others count as no word: without a limit,
        `the` would be the letter t.
        """
        place_T = self.place(id_T)
        letter_T = np.where(self.tested_V[place_T] == (part == "test"), self.letter_V[place_T], NO_WORD)
        word_T = self.word_V[place_T]
        order = np.lexsort((np.random.default_rng(seed).random(len(id_T)), word_T))
        start_T = np.searchsorted(word_T[order], word_T[order])
        letter_T[order[np.arange(len(order)) - start_T >= occurrences]] = NO_WORD
        return letter_T
