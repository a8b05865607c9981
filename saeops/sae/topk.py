"""TopK with AuxK (Gao et al. 2024, arXiv 2406.04093), on the sparse path.

# T token, D d_model, F latent, K kept a token, N entry, A latent dead at this step
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saeops.sae.kernels import Pattern, decode_at, encode_at, encode_topk, topk
from saeops.sae.trainable import Outcome, TrainableSae
from saeops.sae.variants import TopK

SMALLEST_VARIANCE = 1e-8
"""Of a residual with E‖x‖² = d_model: below it there is nothing left to model."""


def relu_straight_through(pre: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """ReLU with the identity's gradient, for dead latents: one that is negative on every token learns too."""
    return pre + (pre.relu() - pre).detach()


class TopKSae(TrainableSae):
    """Keeps the k largest latents of each token; loss = mse + aux_coefficient · AuxK."""

    def __init__(self, variant: TopK, d_model: int, d_sae: int, *, generator: torch.Generator) -> None:
        super().__init__(d_model, d_sae, decoder_norm=1.0, generator=generator)
        self.variant = variant
        self.aux_k = variant.aux_k or max(1, d_model // 2)

    def outcome(self, x_TD: Float[Tensor, "T D"], *, dead: Bool[Tensor, " F"], progress: float) -> Outcome:  # noqa: ARG002
        centred_TD = (x_TD - self.b_dec).detach()
        picked = encode_topk(centred_TD, self.W_enc_FD, self.b_enc, self.variant.k)
        pattern = Pattern.of_rows(picked.latent, n_latents=len(self.b_enc))
        pre = picked.value.flatten()
        value = encode_at(centred_TD, self.W_enc_FD, self.b_enc, self.b_dec, pre=pre, pattern=pattern)
        error_TD = x_TD - decode_at(value, self.W_dec_FD, pattern) - self.b_dec
        mse = error_TD.square().mean()
        aux = self._aux(centred_TD, error_TD.detach(), dead)
        fires = value.detach() > 0
        fired = torch.zeros_like(dead).index_fill_(0, pattern.latent[fires], True)
        return Outcome(
            mse + self.variant.aux_coefficient * aux, mse.detach(), aux.detach(), fires.sum() / len(x_TD), fired
        )

    def _aux(
        self, centred_TD: Float[Tensor, "T D"], residual_TD: Float[Tensor, "T D"], dead: Bool[Tensor, " F"]
    ) -> Float[Tensor, ""]:
        """How badly the best dead latents model what the living leave, over the residual's variance."""
        dead_A = dead.nonzero().squeeze(1)
        if len(dead_A) == 0 or self.variant.aux_coefficient == 0:
            return centred_TD.new_zeros(())
        pre_TA = torch.addmm(self.b_enc[dead_A], centred_TD, self.W_enc_FD[dead_A].t())
        f_TA = relu_straight_through(pre_TA)
        if len(dead_A) > self.aux_k:
            # Living latents would always win this top-k, so only dead ones compete.
            best = topk(pre_TA.detach(), self.aux_k).latent
            f_TA = f_TA * torch.zeros_like(f_TA).scatter_(1, best, 1)
        missed_TD = residual_TD - f_TA @ self.W_dec_FD[dead_A]
        variance = residual_TD.var(0, correction=0).mean()
        return missed_TD.square().mean() / variance.clamp(min=SMALLEST_VARIANCE)

    @torch.no_grad()
    def before_step(self) -> None:
        """Take the part along each decoder row off its gradient: it would only change the norm."""
        gradient = self.W_dec_FD.grad
        assert gradient is not None
        along = (gradient * self.W_dec_FD).sum(1, keepdim=True)
        gradient.addcmul_(along, self.W_dec_FD, value=-1)

    @torch.no_grad()
    def after_step(self) -> None:
        """Bring decoder rows back to unit norm."""
        self.W_dec_FD.div_(self.W_dec_FD.norm(dim=1, keepdim=True))
