"""The closed union of SAE variants, each owning its own fields (no torch here: params import this)."""

from typing import Literal

from pydantic import Field

from saeops.config import Frozen

MULTI = 4
"""Multi-TopK also reconstructs with this many times k latents (arXiv 2406.04093, A.3)."""


class TopK(Frozen):
    """Exactly k latents a token (Gao et al. 2024, arXiv 2406.04093)."""

    variant: Literal["topk"] = "topk"
    """Name of the variant in params."""
    k: int = Field(default=32, ge=1)
    """Latents that fire on each token."""
    aux_coefficient: float = Field(default=1 / 32, ge=0)
    """Weight of AuxK: the dead latents' model of the residual; 0 turns it off."""
    aux_k: int | None = Field(default=None, ge=1)
    """Dead latents that compete in AuxK; null means d_model / 2."""
    multi_coefficient: float = Field(default=0, ge=0)
    """Weight of Multi-TopK, the error with 4k latents (1/8 in the source), good at other k too; 0 turns it off."""


class ReluL1(Frozen):
    """ReLU with an L1 penalty weighed by decoder norm (Scaling Monosemanticity, 2024)."""

    variant: Literal["relu_l1"] = "relu_l1"
    """Name of the variant in params."""
    l1_coefficient: float = Field(default=5.0, ge=0)
    """Weight of Σ f·‖d‖ beside the squared error, on activations scaled to E‖x‖² = d_model."""
    l1_warmup_fraction: float = Field(default=0.05, ge=0, le=1)
    """Share of training over which the penalty grows from 0."""


Variant = TopK | ReluL1
