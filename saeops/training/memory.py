"""How much memory a run takes, known before it starts."""

import math
from typing import assert_never

from saeops.sae.dense import FEW
from saeops.sae.select import chunk_tokens
from saeops.sae.variants import MULTI, BatchTopK, Gated, JumpReLU, Matryoshka, ReluL1, TopK, Variant
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
PREFIX_COPIES = 4
"""Each prefix's own reconstruction, its error and their gradients."""
FOUND = 2
"""Entries above a guessed floor, beside those that are kept."""


def bytes_needed(
    config: TrainingConfig, variant: Variant, *, d_model: int, d_sae: int, d_out: int | None = None
) -> int:
    """Largest memory of a run in bytes, apart from Python and its libraries. An estimate from above.

    Args:
        d_out: width of a transcoder's target; None: an autoencoder, whose target is its input.
    """
    widths = d_model + (d_out or d_model)
    weights = WEIGHT_COPIES * FP32 * widths * d_sae
    batch = config.batch_size
    tokens = BATCH_COPIES * batch + BUFFER_COPIES * config.buffer_tokens
    # An autoencoder's target is the very tensor of its input.
    tokens_bytes = FP32 * (d_model if d_out is None else widths) * tokens
    chunk = DENSE_COPIES * FP32 * chunk_tokens(d_sae) * d_sae
    return weights + tokens_bytes + chunk + _of_variant(variant, batch, widths=widths, d_sae=d_sae)


def _of_variant(variant: Variant, batch: int, *, widths: int, d_sae: int) -> int:
    """What the codes of one batch take."""
    # AuxK is dense over the dead latents, which could be all of them.
    dense = DENSE_COPIES * FP32 * batch * d_sae
    match variant:
        case TopK():
            kept = variant.k * (1 + MULTI if variant.multi_coefficient else 1)
            return ENTRY_BYTES * batch * kept + (dense if variant.aux_coefficient else 0)
        case BatchTopK():
            return FOUND * ENTRY_BYTES * batch * variant.k + (dense if variant.aux_coefficient else 0)
        case Matryoshka():
            prefixes = PREFIX_COPIES * FP32 * batch * len(variant.prefixes) * widths
            kept = FOUND * ENTRY_BYTES * batch * variant.k
            return kept + prefixes + (dense if variant.aux_coefficient else 0)
        case JumpReLU() | Gated() | ReluL1():
            # Dense chunks accumulate their gradients; entries take over once few latents fire.
            return FP32 * widths * d_sae + math.ceil(FEW * ENTRY_BYTES * batch * d_sae)
        case _:
            assert_never(variant)
