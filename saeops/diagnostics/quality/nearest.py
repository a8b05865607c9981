"""Nearest neighbours by cosine, block by block: the whole matrix of cosines is never held.

# F row, G row of the other set, E width
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

Array = np.ndarray

CHUNK_VALUES = 1 << 24
"""Largest block of cosines (64 MB of fp32)."""


@dataclass(frozen=True)
class Nearest:
    """Each row's nearest row of another set, the first where several are equally near."""

    cosine_F: Float[Array, " F"]
    index_F: Int[Array, " F"]


def nearest(rows_FE: Float[Tensor, "F E"], others_GE: Float[Tensor, "G E"]) -> Nearest:
    """Among the others."""
    return _nearest(rows_FE, others_GE, among_themselves=False)


def nearest_other(rows_FE: Float[Tensor, "F E"]) -> Nearest:
    """Among the rows themselves, each left out for itself; at least two rows."""
    return _nearest(rows_FE, rows_FE, among_themselves=True)


@torch.no_grad()
def _nearest(rows_FE: Tensor, others_GE: Tensor, *, among_themselves: bool) -> Nearest:
    rows_FE = torch.nn.functional.normalize(rows_FE.float(), dim=1)
    others_EG = torch.nn.functional.normalize(others_GE.float(), dim=1).T
    size = max(1, CHUNK_VALUES // others_EG.shape[1])
    found = []
    for start in range(0, len(rows_FE), size):
        cosines = rows_FE[start : start + size] @ others_EG
        if among_themselves:
            cosines.diagonal(offset=start).fill_(-torch.inf)
        found.append(cosines.max(dim=1))
    # Rounding may leave the range.
    cosine_F = torch.cat([part.values for part in found]).clamp(-1, 1)
    return Nearest(cosine_F.cpu().double().numpy(), torch.cat([part.indices for part in found]).cpu().numpy())
