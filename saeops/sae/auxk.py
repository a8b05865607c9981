"""AuxK: dead latents model what the living leave over (Gao et al. 2024, arXiv 2406.04093, A.2).

# T token, D d_model (E of the target), F latent, A latent dead at this step
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saeops.sae.select import topk
from saeops.sae.sparse import gather_rows
from saeops.sae.trainable import TrainableSae

SMALLEST_VARIANCE = 1e-8
"""Of a residual with E‖y‖² = d_model: below it there is nothing left to model."""


def relu_straight_through(pre: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """ReLU with the identity's gradient, for dead latents: one that is negative on every token learns too."""
    return pre + (pre.relu() - pre).detach()


@dataclass(frozen=True)
class AuxK:
    """The auxiliary loss and what weighs it."""

    k: int
    """Dead latents that compete for each token."""
    coefficient: float

    def error(
        self,
        sae: TrainableSae,
        x_TD: Float[Tensor, "T D"],
        residual_TE: Float[Tensor, "T E"],
        dead: Bool[Tensor, " F"],
    ) -> Float[Tensor, ""]:
        """How badly the best dead latents model the residual, over its variance; 0 where none is dead."""
        dead_A = dead.nonzero().squeeze(1)
        if len(dead_A) == 0 or self.coefficient == 0:
            return x_TD.new_zeros(())
        W_enc_AD, b_enc_A = gather_rows(sae.W_enc_FD, dead_A), gather_rows(sae.b_enc, dead_A)
        pre_TA = torch.addmm(b_enc_A, x_TD, W_enc_AD.t()).to(x_TD.dtype)
        f_TA = relu_straight_through(pre_TA)
        if len(dead_A) > self.k:
            # Living latents would always win this top-k, so only dead ones compete.
            best = topk(pre_TA.detach(), self.k).latent
            f_TA = f_TA * torch.zeros_like(f_TA).scatter_(1, best, 1)
        missed_TE = residual_TE - f_TA @ gather_rows(sae.W_dec_FE, dead_A)
        variance = residual_TE.var(0, correction=0).mean()
        return missed_TE.square().mean() / variance.clamp(min=SMALLEST_VARIANCE)
