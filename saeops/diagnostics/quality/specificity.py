"""Specificity of logit effects: how much of the vocabulary a decoder row moves.

# F latent, E width of the decoder row, V vocabulary, N vector, M its values
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Array = np.ndarray
Unembed = Callable[[Float[Tensor, "F E"]], Float[Tensor, "F V"]]
"""Direct effect of residual-stream directions on the logits."""

CHUNK_VALUES = 1 << 24
"""Largest piece of the F × V product, in values (64 MB of fp32)."""


def effective_share(values_NM: Float[Tensor, "N M"]) -> Float[Tensor, " N"]:
    """(L1 / L2)² / M, the share of a vector's values that effectively differ from 0; NaN where all are 0.

    1 where all are equally large, 1/M where one value alone is not 0, 2/π for independent normal ones.
    The measure of Gao et al. 2024 (arXiv 2406.04093, §4.5).
    """
    l1_N, l2_N = (torch.linalg.vector_norm(values_NM, order, dim=1).double() for order in (1, 2))
    return (l1_N / l2_N).square() / values_NM.shape[1]


def centred(logits: Float[Tensor, "*N V"]) -> Float[Tensor, "*N V"]:
    """Less their median: a constant added to every logit changes no probability, and so counts as no effect."""
    return logits - logits.median(dim=-1, keepdim=True).values


@torch.no_grad()
def logit_specificity(unembed: Unembed, W_dec: Float[Tensor, "F E"], *, vocabulary: int) -> Float[Array, " F"]:
    """The effective share of the vocabulary in each row's direct effect on the logits."""
    size = max(1, CHUNK_VALUES // vocabulary)
    parts = [effective_share(centred(unembed(part).float())).cpu() for part in W_dec.split(size)]
    return torch.cat(parts).numpy()
