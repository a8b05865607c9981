"""How much memory a run takes, known before it starts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, assert_never

import torch

from saeops.errors import MemoryShort
from saeops.sae.dense import FEW
from saeops.sae.select import chunk_tokens
from saeops.sae.variants import MULTI, BatchTopK, Gated, JumpReLU, Matryoshka, ReluL1, TopK, Variant
from saeops.training.config import TrainingConfig
from saeops.training.machine import MachineMemory
from saeops.training.prefetch import AHEAD

FP32 = 4
HELD_COPIES = 3
"""Weights and two moments, held between steps."""
PASSING_COPIES = 7
"""Gradients; or weights and moments twice, as a checkpoint's bytes; or float64 while the SAE is folded."""
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


@dataclass(frozen=True)
class Memory:
    """The largest memory of a run in bytes, apart from Python and its libraries. Estimates from above."""

    held: int
    """Between steps: weights and moments."""
    passing: int
    """Gradients, and copies while a checkpoint is written; given back."""
    codes: int
    """Of one batch; given back."""
    tokens: int
    """The shuffle's buffer and batches, those loaded ahead included; on the host."""

    @property
    def total(self) -> int:
        return self.held + self.passing + self.codes + self.tokens

    @classmethod
    def together(cls, members: Sequence[Self]) -> Self:
        """Of runs that share one pass over the data and make their steps in turn."""
        return cls(
            held=sum(one.held for one in members),
            passing=max(one.passing for one in members),
            codes=max(one.codes for one in members),
            tokens=max(one.tokens for one in members),
        )


def memory_needed(
    config: TrainingConfig, variant: Variant, *, d_model: int, d_sae: int, d_out: int | None = None
) -> Memory:
    """What a run needs.

    Args:
        d_out: width of a transcoder's target; None: an autoencoder, whose target is its input.
    """
    widths = d_model + (d_out or d_model)
    batch = config.batch_size
    tokens = (BATCH_COPIES + AHEAD + 1) * batch + BUFFER_COPIES * config.buffer_tokens
    chunk = DENSE_COPIES * FP32 * chunk_tokens(d_sae) * d_sae
    return Memory(
        held=HELD_COPIES * FP32 * widths * d_sae,
        passing=PASSING_COPIES * FP32 * widths * d_sae,
        codes=chunk + _of_variant(variant, batch, widths=widths, d_sae=d_sae),
        # An autoencoder's target is the very tensor of its input.
        tokens=FP32 * (d_model if d_out is None else widths) * tokens,
    )


def bytes_needed(
    config: TrainingConfig, variant: Variant, *, d_model: int, d_sae: int, d_out: int | None = None
) -> int:
    """The total of `memory_needed`."""
    return memory_needed(config, variant, d_model=d_model, d_sae=d_sae, d_out=d_out).total


def check_memory(needed: Memory, machine: MachineMemory, *, device: torch.device) -> str | None:
    """A warning where less is free than is needed; None where all is well.

    Raises:
        MemoryShort: more is needed than there is at all.
    """
    # On CUDA the buffer stays on the host, and a batch is little beside the rest.
    amount = needed.total - needed.tokens if device.type == "cuda" else needed.total
    lower = {
        "train.expansion_factor": needed.held + needed.passing,
        "train.batch_size": needed.codes,
        "train.buffer_tokens": 0 if device.type == "cuda" else needed.tokens,
    }
    largest_first = sorted((name for name in lower if lower[name]), key=lambda name: -lower[name])
    parts = ", ".join(f"{name} ({in_gb(lower[name])})" for name in largest_first)
    if amount > machine.total:
        raise MemoryShort(
            f"training needs up to {in_gb(amount)} of memory on {device}, which has {in_gb(machine.total)}",
            hint=f"lower what takes most: {parts}",
        )
    if amount > machine.free:
        return f"of {in_gb(amount)} that training may need only {in_gb(machine.free)} are free; it may be killed"
    return None


def in_gb(size: int) -> str:
    """As people read it."""
    return f"{size / 1e9:.2f} GB"


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
