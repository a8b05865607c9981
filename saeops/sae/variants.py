"""The closed union of SAE variants, each owning its own fields (no torch here: params import this).

Coefficients and thresholds are meant for activations scaled to E‖x‖² = d_model.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

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
    encoder: Literal["exact", "shortlist"] = "exact"
    """`shortlist` finds candidates by int8 products and computes them in fp32: faster where d_sae is large, on a
    CPU with AVX-512 VNNI and BF16; elsewhere it is exact."""
    min_recall: float = Field(default=0.99, ge=0, le=1)
    """Share of the exact top k under which the shortlist gives way to the exact encoder."""
    multi_coefficient: float = Field(default=0, ge=0)
    """Weight of Multi-TopK, the error with 4k latents (1/8 in the source), good at other k too; 0 turns it off."""


class BatchTopK(Frozen):
    """k latents a token on the mean of a batch, then a threshold (Bussmann et al. 2024, arXiv 2412.06410)."""

    variant: Literal["batch_topk"] = "batch_topk"
    """Name of the variant in params."""
    k: int = Field(default=32, ge=1)
    """Latents that fire on a token, on the mean of a batch."""
    aux_coefficient: float = Field(default=1 / 32, ge=0)
    """Weight of AuxK, as for topk (the same 1/32 in the source); 0 turns it off."""
    aux_k: int | None = Field(default=None, ge=1)
    """Dead latents that compete in AuxK; null means d_model / 2."""


class Matryoshka(Frozen):
    """BatchTopK whose prefixes each reconstruct alone (Bussmann et al. 2025, arXiv 2503.17547)."""

    variant: Literal["matryoshka"] = "matryoshka"
    """Name of the variant in params."""
    k: int = Field(default=32, ge=1)
    """Latents that fire on a token, on the mean of a batch, over the whole dictionary."""
    prefixes: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0), min_length=1
    )
    """Nested dictionaries as shares of d_sae, ending in 1; five that double, much as in the source."""
    aux_coefficient: float = Field(default=1 / 32, ge=0)
    """Weight of AuxK, as for topk (the same 1/32 in the source); 0 turns it off."""
    aux_k: int | None = Field(default=None, ge=1)
    """Dead latents that compete in AuxK; null means d_model / 2."""

    @model_validator(mode="after")
    def _prefixes_are_nested(self) -> Self:
        if self.prefixes[-1] != 1 or list(self.prefixes) != sorted(set(self.prefixes)):
            raise ValueError(f"prefixes must rise and end in 1 (got {list(self.prefixes)})")
        return self

    def sizes(self, d_sae: int) -> tuple[int, ...]:
        """Latents of each prefix."""
        return tuple(round(share * d_sae) for share in self.prefixes)


class TargetL0(Frozen):
    """Steer to an L0: coefficient · (L0 / target − 1)² (Rajamanoharan et al. 2024, arXiv 2407.14435)."""

    kind: Literal["target_l0"] = "target_l0"
    """Name of the penalty in params."""
    target: float = Field(default=32, gt=0)
    """Mean latents a token that the penalty steers to."""
    coefficient: float = Field(default=1.0, ge=0)
    """Its weight beside the mean squared error, which is about 1 − explained variance."""


class PenalisedL0(Frozen):
    """A price for every latent that fires: coefficient · L0 (Rajamanoharan et al. 2024, arXiv 2407.14435)."""

    kind: Literal["l0_penalty"] = "l0_penalty"
    """Name of the penalty in params."""
    coefficient: float = Field(default=1e-3, ge=0)
    """Share of the variance that a latent must explain to be worth firing."""
    first_l0: float = Field(default=32, gt=0)
    """Mean latents a token when training starts, by their thresholds; afterwards the penalty decides."""


class JumpReLU(Frozen):
    """A threshold of its own for every latent (Rajamanoharan et al. 2024, arXiv 2407.14435)."""

    variant: Literal["jumprelu"] = "jumprelu"
    """Name of the variant in params."""
    sparsity: TargetL0 | PenalisedL0 = Field(default=TargetL0(), discriminator="kind")
    """What keeps latents from firing."""
    sparsity_warmup_fraction: float = Field(default=0.05, ge=0, le=1)
    """Share of training over which the penalty grows from 0."""
    bandwidth: float = Field(default=0.01, gt=0)
    """Width of the kernel round a threshold, in units of an activation of mean square norm 1.

    0.001 in the source, whose runs have a hundred times the steps: see docs/decisions/sparse-start.md.
    """


class Gated(Frozen):
    """Whether a latent fires, and how strongly, by two paths (Rajamanoharan et al. 2024, arXiv 2404.16014)."""

    variant: Literal["gated"] = "gated"
    """Name of the variant in params."""
    l1_coefficient: float = Field(default=4.0, ge=0)
    """Weight of Σ relu(gate) beside the squared error; 4 leaves about 35 latents on a token of SmolLM2-135M."""
    first_l0: float = Field(default=32, gt=0)
    """Mean gates open on a token when training starts, by their bias; afterwards the penalty decides."""
    l1_warmup_fraction: float = Field(default=0.05, ge=0, le=1)
    """Share of training over which the penalty grows from 0."""


class ReluL1(Frozen):
    """ReLU with an L1 penalty weighed by decoder norm (Scaling Monosemanticity, 2024)."""

    variant: Literal["relu_l1"] = "relu_l1"
    """Name of the variant in params."""
    l1_coefficient: float = Field(default=5.0, ge=0)
    """Weight of Σ f·‖d‖ beside the squared error, as in the source."""
    l1_warmup_fraction: float = Field(default=0.05, ge=0, le=1)
    """Share of training over which the penalty grows from 0, as in the source."""


Variant = TopK | BatchTopK | JumpReLU | Gated | Matryoshka | ReluL1
