"""Stability across seeds: which latents another training run finds again.

# F latent, G latent of another SAE, E width of a decoder row
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from saeops.diagnostics.quality.nearest import nearest

Array = np.ndarray


def seed_cosine(
    W_dec: Float[Tensor, "F E"], others: Sequence[Float[Tensor, "G E"]], living_F: Bool[Array, " F"]
) -> Float[Array, " F"]:
    """Decoder cosine with the latent's counterpart in SAEs of other seeds, a mean over them; NaN if it is dead."""
    assert others, "stability needs an SAE of another seed"
    mean_F = np.mean([counterpart_cosine(W_dec, other) for other in others], axis=0)
    return np.where(living_F, mean_F, np.nan)


def counterpart_cosine(W_dec: Float[Tensor, "F E"], other: Float[Tensor, "G E"]) -> Float[Array, " F"]:
    """Cosine of mutual nearest neighbours; 0 for a latent that has no counterpart.

    One counterpart has one latent, as in a Hungarian matching, at the cost of two products instead of F³.
    """
    there, back = nearest(W_dec, other), nearest(other, W_dec)
    mutual_F = back.index_F[there.index_F] == np.arange(len(W_dec))
    return np.where(mutual_F, there.cosine_F, 0.0)
