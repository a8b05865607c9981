"""Redundancy: how near each latent's decoder row is to that of another.

# F latent, E width of a decoder row
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saeops.diagnostics.quality.nearest import nearest_other

Array = np.ndarray

NO_LATENT = -1


@dataclass(frozen=True)
class Redundancy:
    """The living latent whose decoder row is nearest to each living latent's own."""

    cosine_F: Float[Array, " F"]
    """NaN for a dead latent."""
    latent_F: Int[Array, " F"]
    """`NO_LATENT` for a dead latent."""


def redundancy(W_dec: Float[Tensor, "F E"], living_F: Bool[Array, " F"]) -> Redundancy:
    """Among living latents alone: a dead one repeats nothing.

    The cosine is signed: latents of opposite directions say different things.
    """
    living = np.flatnonzero(living_F)
    cosine_F, latent_F = np.full(len(W_dec), np.nan), np.full(len(W_dec), NO_LATENT)
    if len(living) > 1:
        found = nearest_other(W_dec[torch.from_numpy(living)])
        cosine_F[living], latent_F[living] = found.cosine_F, living[found.index_F]
    return Redundancy(cosine_F, latent_F)
