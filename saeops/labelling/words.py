"""Tokens as words: what rules are written in.

A tokenizer has several tokens for one word (`index`, ` index`, `Index`); a rule
that lists one of them means them all.

# T token, L slot of a history
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

ABSENT = -1
"""Stands in a history where the window had not begun: no token id is negative."""

Spell = Callable[[Sequence[int]], list[str]]
"""Token ids → the text each stands for."""


def word(text: str) -> str:
    """A token's text without case and surrounding space; a token that is only space stays as it is."""
    return text.strip().casefold() or text


@dataclass(frozen=True)
class History:
    """Every explain token with those before it, as words."""

    word: Int[np.ndarray, "T L"]
    """Index into `words`, or `ABSENT` where the window had not begun."""
    words: tuple[str, ...]

    @classmethod
    def of(cls, history_TL: Int[np.ndarray, "T L"], spell: Spell) -> "History":
        """From token ids."""
        ids = np.unique(history_TL[history_TL != ABSENT])
        texts = [word(text) for text in spell(ids.tolist())]
        words = tuple(dict.fromkeys(texts))
        place = {text: i for i, text in enumerate(words)}
        # One more place than there are ids: ABSENT is −1, so it reads the last.
        table = np.full(int(ids.max(initial=0)) + 2, ABSENT, dtype=np.int32)
        table[ids] = [place[text] for text in texts]
        return cls(table[history_TL], words)
