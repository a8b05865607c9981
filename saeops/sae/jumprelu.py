"""JumpReLU (Rajamanoharan et al. 2024, arXiv 2407.14435).

# T token, D d_model (E of the target), F latent, N entry
"""

import math
from dataclasses import dataclass
from typing import assert_never

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from saeops.sae.dense import Part, few_fire, in_chunks
from saeops.sae.l1 import warmed_up
from saeops.sae.level import level_of_l0
from saeops.sae.select import encode_above
from saeops.sae.sparse import encode_at, reconstruct_at
from saeops.sae.trainable import Outcome, Shape, TrainableSae, Weights
from saeops.sae.variants import JumpReLU, PenalisedL0, TargetL0

FIRST_THRESHOLD = 0.001
"""Every threshold before data is seen, as in the source: in units of an activation of mean square norm 1."""
LEAST_THRESHOLD = 1e-6
"""Of a latent that an earlier run left without one: its logarithm is what is trained."""


@dataclass(frozen=True)
class Jump:
    """JumpReLU at some pre-activations, of any one shape."""

    f: Float[Tensor, "..."]
    fires: Bool[Tensor, "..."]
    near: Bool[Tensor, "..."]
    """Within half a bandwidth of the threshold: what its gradient is estimated from."""


def jump(z: Float[Tensor, "..."], theta: Float[Tensor, "..."], bandwidth: float) -> Jump:
    """z·H(z − θ), with the source's estimate of the gradient in θ: −(θ/ε)·rect((z − θ)/ε), equation 11."""
    level = theta.detach()
    fires = z.detach() > level
    near = (z.detach() - level).abs() < bandwidth / 2
    # Adds 0, and the gradient that a step has not.
    return Jump(z * fires - (near * level / bandwidth) * (theta - level), fires, near)


class JumpReLUSae(TrainableSae):
    """A latent fires above its own threshold; loss = mse + price of the mean L0.

    Thresholds start where few latents of a sample fire, so that training is
    sparse from its first step. From the source's constant of 0.001, far below
    what fires at random, they need thousands of steps to rise
    (docs/decisions/sparse-start.md).
    """

    unit_rows = True

    def __init__(self, variant: JumpReLU, shape: Shape, *, generator: torch.Generator) -> None:
        super().__init__(shape, decoder_norm=1.0, generator=generator)
        self.variant = variant
        unit = math.sqrt(shape.d_in)
        self.bandwidth = variant.bandwidth * unit
        self.log_threshold = nn.Parameter(torch.full((shape.d_sae,), math.log(FIRST_THRESHOLD * unit)))

    def start(self, x_TD: Float[Tensor, "T D"]) -> None:
        match self.variant.sparsity:
            case TargetL0(target=wanted) | PenalisedL0(first_l0=wanted):
                level = level_of_l0(self, x_TD, wanted)
            case other:
                assert_never(other)
        if level > 0:
            self.log_threshold.fill_(math.log(level))

    def outcome(
        self,
        x_TD: Float[Tensor, "T D"],
        y_TE: Float[Tensor, "T E"],
        *,
        dead: Bool[Tensor, " F"],  # noqa: ARG002
        progress: float,
    ) -> Outcome:
        theta = self.log_threshold.exp()
        floor = theta.detach() - self.bandwidth / 2
        if few_fire(x_TD, self.W_enc_FD, self.b_enc, floor):
            part = self._sparse(x_TD, y_TE, floor)
        else:
            parameters = self.differentiated()
            part = in_chunks(self._dense, x_TD, y_TE, parameters=parameters, n_latents=len(self.b_enc))
        fires_F, near_F = part.figures["fires_F"], part.figures["near_F"]
        l0 = fires_F.sum() / len(x_TD)
        # Again adds 0 and a gradient, that of H: −(1/ε)·rect((z − θ)/ε), equation 12.
        slope = near_F / (self.bandwidth * len(x_TD))
        penalty = self._penalty(l0 - (slope * (theta - theta.detach())).sum())
        mse = part.loss / y_TE.numel()
        sparsity = self.variant.sparsity
        coefficient = warmed_up(sparsity.coefficient, self.variant.sparsity_warmup_fraction, progress)
        return Outcome(mse + coefficient * penalty, mse.detach(), penalty.detach(), l0, fires_F > 0)

    @torch.no_grad()
    def take(self, weights: Weights) -> None:
        super().take(weights)
        assert weights.threshold is not None, "a JumpReLU has one"
        self.log_threshold.copy_(weights.threshold.clamp(min=LEAST_THRESHOLD).log())

    def weights(self) -> Weights:
        weights = super().weights()
        threshold = self.log_threshold.detach().exp()
        return Weights(weights.W_enc_FD, weights.b_enc, weights.W_dec_FE, weights.b_dec, threshold)

    def _penalty(self, l0: Float[Tensor, ""]) -> Float[Tensor, ""]:
        match self.variant.sparsity:
            case TargetL0(target=target):
                return (l0 / target - 1).square()
            case PenalisedL0():
                return l0
            case other:
                assert_never(other)

    def _dense(self, x_TD: Float[Tensor, "T D"], y_TE: Float[Tensor, "T E"]) -> Part:
        pre_TF = torch.addmm(self.b_enc, x_TD, self.W_enc_FD.t()).to(x_TD.dtype)
        code = jump(pre_TF, self.log_threshold.exp(), self.bandwidth)
        squared_error = (y_TE - torch.addmm(self.b_dec, code.f, self.W_dec_FE)).square().sum()
        return Part(squared_error, {"fires_F": code.fires.sum(0), "near_F": code.near.sum(0)})

    def _sparse(self, x_TD: Float[Tensor, "T D"], y_TE: Float[Tensor, "T E"], floor: Float[Tensor, " F"]) -> Part:
        found = encode_above(x_TD, self.W_enc_FD, self.b_enc, floor)
        pattern, latent = found.pattern, found.pattern.latent
        pre = encode_at(x_TD, self.W_enc_FD, self.b_enc, pre=found.pre, pattern=pattern)
        code = jump(pre, self.log_threshold.exp().index_select(0, latent), self.bandwidth)
        made = reconstruct_at(code.f, self.W_dec_FE, self.b_dec, y_TE, pattern)
        counts = {
            "fires_F": torch.bincount(latent[code.fires], minlength=pattern.n_latents),
            "near_F": torch.bincount(latent[code.near], minlength=pattern.n_latents),
        }
        return Part(made.squared_error, counts)
