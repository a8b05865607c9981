"""Where the tokens of a split lie: each has a row, documents one after another.

# U document, T token of the split (masked ones included)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Int

Array = np.ndarray


@dataclass(frozen=True)
class Layout:
    """The split's documents, and how they were cut into windows."""

    document_U: Int[Array, " U"]
    """Document numbers, ascending."""
    offset_U: Int[Array, " U+1"]
    """Document u owns the rows offset[u] to offset[u + 1]."""
    token_T: Int[Array, " T"]
    """Token ids of all rows."""
    window_tokens: int
    """A document's own tokens in a window."""

    @classmethod
    def of(cls, documents: Sequence[int], tokens: Sequence[Array], *, window_tokens: int) -> Self:
        """From document numbers, ascending, and each document's token ids."""
        offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in tokens])]).astype(np.int64)
        flat = np.concatenate([*tokens, []]).astype(np.int32)
        return cls(np.asarray(documents, dtype=np.int64), offsets, flat, window_tokens)

    def rows(self, document: Int[Array, " N"], position: Int[Array, " N"]) -> Int[Array, " N"]:
        """The row of each (document, position); every document must be one of the split's."""
        place = np.searchsorted(self.document_U, document)
        assert (self.document_U[place] == document).all()
        return self.offset_U[place] + position

    def document_start(self, row: Int[Array, " N"]) -> Int[Array, " N"]:
        """The first row of each row's document."""
        return self.offset_U[self._place(row)]

    def document_of(self, row: Int[Array, " N"]) -> Int[Array, " N"]:
        """The document number of each row."""
        return self.document_U[self._place(row)]

    def window_start(self, row: Int[Array, " N"]) -> Int[Array, " N"]:
        """The first row of the window that the model read each row in; it names the window too."""
        start = self.document_start(row)
        return start + (row - start) // self.window_tokens * self.window_tokens

    def window_end(self, row: Int[Array, " N"]) -> Int[Array, " N"]:
        """The row after that window's last."""
        document_end = self.offset_U[self._place(row) + 1]
        return np.minimum(self.window_start(row) + self.window_tokens, document_end)

    def _place(self, row: Int[Array, " N"]) -> Int[Array, " N"]:
        return np.searchsorted(self.offset_U, row, side="right") - 1
