"""ReLU with an L1 penalty weighed by decoder norm (Scaling Monosemanticity, 2024, methods).

# T token, D d_model (E of the target), F latent
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saeops.sae.trainable import Outcome, Shape, TrainableSae
from saeops.sae.variants import ReluL1

DECODER_NORM = 0.1
"""Length of decoder rows at the start, as in the source: small, so that the penalty does not rule at once."""


class ReluL1Sae(TrainableSae):
    """Every positive latent fires; loss = (‖y − ŷ‖² + λ Σ f·‖d‖) / D, the source's loss over D.

    Weighing by ‖d‖ leaves nothing to gain by long decoder rows and small
    activations, so the rows go without a norm constraint until they are folded.
    """

    unit_rows = False

    def __init__(self, variant: ReluL1, shape: Shape, *, generator: torch.Generator) -> None:
        super().__init__(shape, decoder_norm=DECODER_NORM, generator=generator)
        self.variant = variant

    def outcome(
        self,
        x_TD: Float[Tensor, "T D"],
        y_TE: Float[Tensor, "T E"],
        *,
        dead: Bool[Tensor, " F"],  # noqa: ARG002
        progress: float,
    ) -> Outcome:
        f_TF = torch.addmm(self.b_enc, x_TD, self.W_enc_FD.t()).relu()
        error_TE = y_TE - torch.addmm(self.b_dec, f_TF, self.W_dec_FE)
        mse = error_TE.square().mean()
        # Σ over latents of (Σ over tokens of f)·‖d‖ needs no second T × F tensor.
        penalty = (f_TF.sum(0) @ self.W_dec_FE.norm(dim=1)) / y_TE.numel()
        fires_TF = f_TF.detach() > 0
        return Outcome(
            mse + self._coefficient(progress) * penalty,
            mse.detach(),
            penalty.detach(),
            fires_TF.sum() / len(x_TD),
            fires_TF.any(0),
        )

    def _coefficient(self, progress: float) -> float:
        warmup = self.variant.l1_warmup_fraction
        return self.variant.l1_coefficient * (min(1.0, progress / warmup) if warmup else 1.0)
