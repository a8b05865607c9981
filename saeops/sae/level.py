"""The level that leaves a wanted number of latents, before there is any training.

# T token, D d_model
"""

import torch
from jaxtyping import Float
from torch import Tensor

from saeops.sae.batch_topk import largest_of, smallest
from saeops.sae.select import encode_above
from saeops.sae.trainable import TrainableSae

SAMPLE_TOKENS = 256
"""Enough for a level over all latents together; all their positive pre-activations are in memory at once."""


@torch.no_grad()
def level_of_l0(sae: TrainableSae, x_TD: Float[Tensor, "T D"], l0: float) -> float:
    """The pre-activation that `l0` latents a token reach, on the mean of a sample; 0 where fewer are positive."""
    sample = x_TD[:SAMPLE_TOKENS]
    positive = encode_above(sample, sae.W_enc_FD, sae.b_enc, 0.0)
    count = round(l0 * len(sample))
    return smallest(largest_of(positive, count)) if 0 < count <= len(positive.pre) else 0.0
