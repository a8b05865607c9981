"""Codes of tokens, cut at the edges of the windows that the model read.

A context never leaves its window, so a batch of whole windows holds all that a context can show.

# T token, N entry (one latent firing on one token)
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from saeops.sae.codes import Codes

Array = np.ndarray


@dataclass(frozen=True)
class CodedBatch:
    """Codes of tokens, with the layout's row of each and its window; rows ascend within and across batches."""

    row_T: Int[Array, " T"]
    window_T: Int[Array, " T"]
    codes: Codes

    def __len__(self) -> int:
        return len(self.row_T)

    def __getitem__(self, part: slice) -> "CodedBatch":
        return CodedBatch(self.row_T[part], self.window_T[part], self.codes[part])


def whole_windows(batches: Iterable[CodedBatch]) -> Iterator[CodedBatch]:
    """The same tokens in batches that cut no window: the last one of each waits for the next batch."""
    waiting: CodedBatch | None = None
    for batch in batches:
        if len(batch) == 0:
            continue
        known = batch if waiting is None else _joined(waiting, batch)
        last = int(np.searchsorted(known.window_T, known.window_T[-1]))
        if last:
            yield known[:last]
        waiting = known[last:]
    if waiting is not None:
        yield waiting


def _joined(first: CodedBatch, second: CodedBatch) -> CodedBatch:
    return CodedBatch(
        np.concatenate([first.row_T, second.row_T]),
        np.concatenate([first.window_T, second.window_T]),
        Codes.concatenate([first.codes, second.codes]),
    )
