"""How much memory a run takes, known before it starts."""

from typing import assert_never

from saeops.sae.select import chunk_tokens
from saeops.sae.variants import ReluL1, TopK, Variant
from saeops.training.config import TrainingConfig

FP32 = 4
WEIGHT_COPIES = 7
"""Weights, gradients, two moments; and weights and moments again as a checkpoint's bytes."""
BATCH_COPIES = 6
"""Raw, normalised and centred activations, reconstruction, error and its gradient."""
BUFFER_COPIES = 2
"""The shuffler's buffer, and the same in the order it is given out."""
ENTRY_BYTES = 64
"""One latent on one token: latent, token, value, their order by latent, gradients."""
DENSE_COPIES = 4
"""A T × F matrix with its ReLU and their gradients."""


def bytes_needed(config: TrainingConfig, variant: Variant, *, d_model: int, d_sae: int) -> int:
    """Largest memory of a run in bytes, apart from Python and its libraries. An estimate from above."""
    weights = WEIGHT_COPIES * FP32 * 2 * d_model * d_sae
    tokens = FP32 * d_model * (BATCH_COPIES * config.batch_size + BUFFER_COPIES * config.buffer_tokens)
    dense = DENSE_COPIES * FP32 * config.batch_size * d_sae
    match variant:
        case TopK():
            entries = ENTRY_BYTES * config.batch_size * variant.k
            chunk = 2 * FP32 * chunk_tokens(d_sae) * d_sae
            # AuxK is dense over the dead latents, which could be all of them.
            return weights + tokens + entries + chunk + (dense if variant.aux_coefficient else 0)
        case ReluL1():
            return weights + tokens + dense
        case _:
            assert_never(variant)
