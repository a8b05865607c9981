"""ReLU with an L1 penalty weighed by decoder norm (Scaling Monosemanticity, 2024, methods).

# T token, D d_model (E of the target), F latent, N entry
"""

import torch
from jaxtyping import Float
from torch import Tensor

from saeops.sae.dense import Part
from saeops.sae.l1 import L1Sae, penalised
from saeops.sae.select import encode_above
from saeops.sae.sparse import encode_at, reconstruct_at
from saeops.sae.trainable import Shape
from saeops.sae.variants import ReluL1

DECODER_NORM = 0.1
"""Length of decoder rows at the start, as in the source: small, so that the penalty does not rule at once."""


class ReluL1Sae(L1Sae):
    """Every positive latent fires; loss = (‖y − ŷ‖² + λ Σ f·‖d‖) / D, the source's loss over D.

    Weighing by ‖d‖ leaves nothing to gain by long decoder rows and small
    activations, so the rows go without a norm constraint until they are folded.
    """

    unit_rows = False

    def __init__(self, variant: ReluL1, shape: Shape, *, generator: torch.Generator) -> None:
        super().__init__(variant, shape, decoder_norm=DECODER_NORM, generator=generator)

    def _dense(self, x_TD: Float[Tensor, "T D"], y_TE: Float[Tensor, "T E"], coefficient: float) -> Part:
        f_TF = torch.addmm(self.b_enc, x_TD, self.W_enc_FD.t()).to(x_TD.dtype).relu()
        squared_error = (y_TE - torch.addmm(self.b_dec, f_TF, self.W_dec_FE)).square().sum()
        # Σ over latents of (Σ over tokens of f)·‖d‖ needs no second T × F tensor.
        penalty = (f_TF.sum(0) * self.W_dec_FE.norm(dim=1)).sum()
        return penalised(squared_error, penalty, coefficient, (f_TF.detach() > 0).sum(0))

    def _sparse(self, x_TD: Float[Tensor, "T D"], y_TE: Float[Tensor, "T E"], coefficient: float) -> Part:
        found = encode_above(x_TD, self.W_enc_FD, self.b_enc, 0.0)
        pattern = found.pattern
        value = encode_at(x_TD, self.W_enc_FD, self.b_enc, pre=found.pre, pattern=pattern)
        made = reconstruct_at(value, self.W_dec_FE, self.b_dec, y_TE, pattern)
        penalty = (value * self.W_dec_FE.norm(dim=1).index_select(0, pattern.latent)).sum()
        fires_F = torch.bincount(pattern.latent, minlength=pattern.n_latents)
        return penalised(made.squared_error, penalty, coefficient, fires_F)
