"""The formulas of each variant, dense, plain and slow: what the fast versions must equal.

Differentiated by autograd alone; property tests compare forward and gradients
in float64. Nothing but tests uses this file.

# T token, D d_model (E of the target), F latent
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
    y_hat: Float[Tensor, "T E"]
    loss: Float[Tensor, ""]


def topk(
    x_TD: Float[Tensor, "T D"],
    y_TE: Float[Tensor, "T E"],
    weights: Weights,
    *,
    k: int,
    multi_coefficient: float = 0,
) -> Reference:
    """TopK and Multi-TopK (arXiv 2406.04093, sections 2.3 and A.3), without AuxK."""
    f_TF = _largest(_pre(x_TD, weights), k).relu()
    y_hat_TE = _decode(f_TF, weights)
    loss = (y_TE - y_hat_TE).square().mean()
    if multi_coefficient:
        wide_TF = _largest(_pre(x_TD, weights), min(4 * k, f_TF.shape[1])).relu()
        loss = loss + multi_coefficient * (y_TE - _decode(wide_TF, weights)).square().mean()
    return Reference(f_TF, y_hat_TE, loss)


def auxk(
    x_TD: Float[Tensor, "T D"],
    residual_TE: Float[Tensor, "T E"],
    weights: Weights,
    *,
    dead: Bool[Tensor, " F"],
    aux_k: int,
) -> Float[Tensor, ""]:
    """AuxK (arXiv 2406.04093, A.2): the residual's error over its variance; at least one latent is dead."""
    pre_TF = _pre(x_TD, weights).masked_fill(~dead, -torch.inf)
    kept_TF = _largest(pre_TF, min(aux_k, int(dead.sum())))
    # ReLU forward, identity backward.
    aux_TF = kept_TF - kept_TF.clamp(max=0).detach()
    missed = (residual_TE - aux_TF @ weights.W_dec_FE).square().sum()
    return missed / (residual_TE - residual_TE.mean(0)).square().sum()


def relu_l1(
    x_TD: Float[Tensor, "T D"], y_TE: Float[Tensor, "T E"], weights: Weights, *, l1_coefficient: float
) -> Reference:
    """ReLU-L1 (Scaling Monosemanticity): (‖y − ŷ‖² + λ Σ f·‖d‖) / D, mean over tokens."""
    f_TF = _pre(x_TD, weights).relu()
    y_hat_TE = _decode(f_TF, weights)
    squared_T = (y_TE - y_hat_TE).square().sum(1)
    penalty_T = (f_TF * weights.W_dec_FE.norm(dim=1)).sum(1)
    return Reference(f_TF, y_hat_TE, (squared_T + l1_coefficient * penalty_T).mean() / y_TE.shape[1])


def _pre(x_TD: Tensor, weights: Weights) -> Tensor:
    return x_TD @ weights.W_enc_FD.t() + weights.b_enc


def _decode(f_TF: Tensor, weights: Weights) -> Tensor:
    return f_TF @ weights.W_dec_FE + weights.b_dec


def _largest(pre_TF: Tensor, k: int) -> Tensor:
    """The k largest of each row where they stand, 0 elsewhere."""
    value, latent = pre_TF.topk(k, dim=1)
    return torch.zeros_like(pre_TF).scatter(1, latent, value)
