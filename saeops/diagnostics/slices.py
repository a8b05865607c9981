"""Slices of the evaluated tokens: by position in the window, and by how common the token is.

# T token, V vocabulary
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

Array = np.ndarray

FREQUENCY_EDGES = (1e-4, 1e-3, 1e-2)
FREQUENCY_NAMES = ("unseen in training", "under 0.01 %", "0.01 to 0.1 %", "0.1 to 1 %", "over 1 %")


@dataclass(frozen=True)
class Slices:
    """Which bucket of each slice a token falls into."""

    position_names: tuple[str, ...]
    frequency_names: tuple[str, ...]
    share_V: Float[Array, " V"]
    """Share of each token id among the train documents' tokens; ids beyond it were not seen."""

    @classmethod
    def of(cls, train_tokens: Sequence[Int[Array, " n"]], *, context_size: int) -> "Slices":
        """From the token ids of the train documents.

        Args:
            context_size: tokens a window, the prepended one included.
        """
        ids = np.concatenate([*train_tokens, np.zeros(0, dtype=np.int64)]).astype(np.int64)
        counts = np.bincount(ids, minlength=1)
        top = int(np.log2(max(context_size - 1, 1)))
        names = ["0", "1", *(f"{2**i} to {min(2 ** (i + 1), context_size) - 1}" for i in range(1, top + 1))]
        return cls(tuple(names), FREQUENCY_NAMES, counts / max(len(ids), 1))

    def position(self, position_T: Int[Tensor, " T"]) -> Int[Tensor, " T"]:
        """Bucket of each place in the window: 0, 1, 2 to 3, 4 to 7, …"""
        # frexp gives the number of binary digits, exactly.
        return torch.frexp(position_T.double())[1].long()

    def frequency(self, token_T: Int[Tensor, " T"]) -> Int[Tensor, " T"]:
        """Bucket of each token id by its share of the train documents' tokens."""
        ids = token_T.cpu().numpy().astype(np.int64)
        known = ids < len(self.share_V)
        share = np.where(known, self.share_V[np.where(known, ids, 0)], 0.0)
        bucket = np.where(share > 0, 1 + np.searchsorted(FREQUENCY_EDGES, share, side="right"), 0)
        return torch.from_numpy(bucket)
