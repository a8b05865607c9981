"""The formulas of each variant, dense, plain and slow: what the fast versions must equal.

Differentiated by autograd alone; property tests compare forward and gradients
in float64. Nothing but tests uses this file.

# T token, D d_model, F latent
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saeops.sae.trainable import Weights


@dataclass(frozen=True)
class Reference:
    """Activations, reconstruction and loss by the book."""

    f: Float[Tensor, "T F"]
    x_hat: Float[Tensor, "T D"]
    loss: Float[Tensor, ""]


def topk(
    x_TD: Float[Tensor, "T D"],
    weights: Weights,
    *,
    k: int,
    dead: Bool[Tensor, " F"],
    aux_k: int,
    aux_coefficient: float,
) -> Reference:
    """TopK with AuxK (arXiv 2406.04093, sections 2.3 and A.2)."""
    f_TF = _largest(_pre(x_TD, weights), k).relu()
    x_hat_TD = f_TF @ weights.W_dec_FD + weights.b_dec
    residual_TD = (x_TD - x_hat_TD).detach()
    frozen_bias = Weights(weights.W_enc_FD, weights.b_enc, weights.W_dec_FD, weights.b_dec.detach())
    pre_TF = _pre(x_TD, frozen_bias).masked_fill(~dead, -torch.inf)
    kept_TF = _largest(pre_TF, min(aux_k, int(dead.sum())))
    # ReLU forward, identity backward.
    aux_TF = kept_TF - kept_TF.clamp(max=0).detach()
    aux = (residual_TD - aux_TF @ weights.W_dec_FD).square().sum()
    aux = aux / (residual_TD - residual_TD.mean(0)).square().sum()
    loss = (x_TD - x_hat_TD).square().mean()
    return Reference(f_TF, x_hat_TD, loss + aux_coefficient * aux if dead.any() else loss)


def relu_l1(x_TD: Float[Tensor, "T D"], weights: Weights, *, l1_coefficient: float) -> Reference:
    """ReLU-L1 (Scaling Monosemanticity): (‖x − x̂‖² + λ Σ f·‖d‖) / D, mean over tokens."""
    f_TF = _pre(x_TD, weights).relu()
    x_hat_TD = f_TF @ weights.W_dec_FD + weights.b_dec
    squared_T = (x_TD - x_hat_TD).square().sum(1)
    penalty_T = (f_TF * weights.W_dec_FD.norm(dim=1)).sum(1)
    return Reference(f_TF, x_hat_TD, (squared_T + l1_coefficient * penalty_T).mean() / x_TD.shape[1])


def _pre(x_TD: Tensor, weights: Weights) -> Tensor:
    return (x_TD - weights.b_dec) @ weights.W_enc_FD.t() + weights.b_enc


def _largest(pre_TF: Tensor, k: int) -> Tensor:
    """The k largest of each row where they stand, 0 elsewhere."""
    value, latent = pre_TF.topk(k, dim=1)
    return torch.zeros_like(pre_TF).scatter(1, latent, value)
