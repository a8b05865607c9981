"""Gated SAEs (Rajamanoharan et al. 2024, arXiv 2404.16014).

# T token, D d_model (E of the target), F latent, N entry
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saeops.sae.dense import Part
from saeops.sae.l1 import L1Sae, penalised
from saeops.sae.level import level_of_l0
from saeops.sae.select import encode_above
from saeops.sae.sparse import encode_at, reconstruct_at
from saeops.sae.trainable import Shape, Weights
from saeops.sae.variants import Gated


class GatedSae(L1Sae):
    """A latent fires where its gate is open, as strongly as its magnitude says.

    gate = x·w + b_gate (here `b_enc`), magnitude = exp(r_mag)·(x·w) + b_mag, and
    f = relu(magnitude) where gate > 0. The loss is ‖y − ŷ‖² + λ Σ relu(gate) +
    ‖y − ŷ_gate‖², over D: ŷ_gate is made from relu(gate) by a decoder that gets
    no gradient from it, and is what teaches the gate to open.

    Gates start with a bias that leaves few of them open, so that training is
    sparse from its first step. With half of them open, as without a bias, the
    penalty needs thousands of steps to close them (docs/decisions/sparse-start.md).
    """

    unit_rows = True

    def __init__(self, variant: Gated, shape: Shape, *, generator: torch.Generator) -> None:
        super().__init__(variant, shape, decoder_norm=1.0, generator=generator)
        self.first_l0 = variant.first_l0
        self.r_mag = nn.Parameter(torch.zeros(shape.d_sae))
        self.b_mag = nn.Parameter(torch.zeros(shape.d_sae))

    def start(self, x_TD: Float[Tensor, "T D"]) -> None:
        self.b_enc.fill_(-level_of_l0(self, x_TD, self.first_l0))

    @torch.no_grad()
    def take(self, weights: Weights) -> None:
        """Gate and magnitude from one path: the gate is open where the magnitude is above its threshold."""
        super().take(weights)
        assert weights.threshold is not None, "a gated SAE has one"
        self.b_mag.copy_(weights.b_enc)
        self.b_enc.copy_(weights.b_enc - weights.threshold)
        self.r_mag.zero_()

    def product_gradient(self) -> Float[Tensor, " F"]:
        """The gate has x·w once, and the magnitude exp(r_mag) times."""
        assert self.b_mag.grad is not None
        return super().product_gradient() + self.r_mag.exp() * self.b_mag.grad

    def weights(self) -> Weights:
        """The magnitude path, with the threshold at which the gate opens: x·w = −b_gate."""
        stretch, b_mag = self.r_mag.detach().exp(), self.b_mag.detach()
        return Weights(
            self.W_enc_FD.detach() * stretch[:, None],
            b_mag,
            self.W_dec_FE.detach(),
            self.b_dec.detach(),
            (b_mag - stretch * self.b_enc.detach()).clamp(min=0),
        )

    def _dense(self, x_TD: Float[Tensor, "T D"], y_TE: Float[Tensor, "T E"], coefficient: float) -> Part:
        gate_TF = torch.addmm(self.b_enc, x_TD, self.W_enc_FD.t()).to(x_TD.dtype)
        magnitude_TF = (gate_TF - self.b_enc) * self.r_mag.exp() + self.b_mag
        f_TF = magnitude_TF.relu() * (gate_TF.detach() > 0)
        open_TF = gate_TF.relu()
        squared_error = (y_TE - torch.addmm(self.b_dec, f_TF, self.W_dec_FE)).square().sum()
        by_gate_TE = torch.addmm(self.b_dec.detach(), open_TF, self.W_dec_FE.detach())
        auxiliary = (y_TE - by_gate_TE).square().sum()
        part = penalised(squared_error, open_TF.sum(), coefficient, (f_TF.detach() > 0).sum(0))
        return Part(part.loss + auxiliary, part.figures)

    def _sparse(self, x_TD: Float[Tensor, "T D"], y_TE: Float[Tensor, "T E"], coefficient: float) -> Part:
        found = encode_above(x_TD, self.W_enc_FD, self.b_enc, 0.0)
        pattern, latent = found.pattern, found.pattern.latent
        gate = encode_at(x_TD, self.W_enc_FD, self.b_enc, pre=found.pre, pattern=pattern)
        bias, stretch, b_mag = (p.index_select(0, latent) for p in (self.b_enc, self.r_mag.exp(), self.b_mag))
        f = ((gate - bias) * stretch + b_mag).relu()
        made = reconstruct_at(f, self.W_dec_FE, self.b_dec, y_TE, pattern)
        by_gate = reconstruct_at(gate, self.W_dec_FE.detach(), self.b_dec.detach(), y_TE, pattern)
        fires_F = torch.bincount(latent[f.detach() > 0], minlength=pattern.n_latents)
        part = penalised(made.squared_error, gate.sum(), coefficient, fires_F)
        return Part(part.loss + by_gate.squared_error, part.figures)
