"""Running text: a document as its tokens spell it, and where in it each token stands.

# T token of the document
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

import numpy as np
from jaxtyping import Bool, Int

Array = np.ndarray


@dataclass(frozen=True)
class RunningText:
    """A document's text with the tokens' edges in it."""

    text: str
    edge_T: Int[Array, " T+1"]
    """Token t spells text[edge[t] : edge[t + 1]]."""

    @classmethod
    def of(cls, texts: Sequence[str]) -> Self:
        """From the text of each token, in order."""
        return cls("".join(texts), np.array(list(accumulate(map(len, texts), initial=0)), dtype=np.int64))

    def touching(self, spans: Iterable[tuple[int, int]]) -> Bool[Array, " T"]:
        """Tokens with at least one character inside a span."""
        change = np.zeros(len(self.text) + 1, dtype=np.int64)
        for start, end in spans:
            change[start] += 1
            change[end] -= 1
        covered = np.concatenate([[0], (change.cumsum()[:-1] > 0).cumsum()])
        return covered[self.edge_T[1:]] > covered[self.edge_T[:-1]]


Rule = Callable[[RunningText], Bool[Array, " T"]]
"""Which tokens of a document an idea holds for."""


def matching(pattern: str) -> Rule:
    """Tokens touched by a match of the regular expression; by its group `at` where it has one.

    `^` and `$` stand at the ends of lines.
    """
    compiled = re.compile(pattern, re.MULTILINE)
    group = "at" if "at" in compiled.groupindex else 0
    return lambda document: document.touching(found.span(group) for found in compiled.finditer(document.text))


def within_word(document: RunningText) -> Bool[Array, " T"]:
    """Tokens that go on with a word which an earlier token began."""
    letter = np.array([character.isalnum() for character in document.text] + [False])
    first_T = document.edge_T[:-1]
    return letter[first_T] & letter[first_T - 1] & (first_T > 0)
