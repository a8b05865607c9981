"""The formulas of each variant, dense, plain and slow: what the fast versions must equal.

Differentiated by autograd alone; property tests compare forward and gradients
in float64. Nothing but tests uses this file.

# T token, D d_model (E of the target), F latent
"""

from collections.abc import Sequence
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


def batch_topk(x_TD: Float[Tensor, "T D"], y_TE: Float[Tensor, "T E"], weights: Weights, *, k: int) -> Reference:
    """BatchTopK (arXiv 2412.06410), without AuxK."""
    f_TF = _largest_of_batch(_pre(x_TD, weights), k)
    y_hat_TE = _decode(f_TF, weights)
    return Reference(f_TF, y_hat_TE, (y_TE - y_hat_TE).square().mean())


def matryoshka(
    x_TD: Float[Tensor, "T D"],
    y_TE: Float[Tensor, "T E"],
    weights: Weights,
    *,
    k: int,
    sizes: Sequence[int],
) -> Reference:
    """Matryoshka BatchTopK (arXiv 2503.17547), without AuxK: each prefix reconstructs with what it holds."""
    f_TF = _largest_of_batch(_pre(x_TD, weights), k)
    losses = []
    for size in sizes:
        y_hat_TE = f_TF[:, :size] @ weights.W_dec_FE[:size] + weights.b_dec
        losses.append((y_TE - y_hat_TE).square().mean())
    return Reference(f_TF, y_hat_TE, torch.stack(losses).mean())


@dataclass(frozen=True)
class Jumped:
    """JumpReLU with its L0, through which the thresholds get a gradient."""

    reference: Reference
    """Its loss is the mean squared error alone."""
    l0: Float[Tensor, ""]


def jumprelu(
    x_TD: Float[Tensor, "T D"], y_TE: Float[Tensor, "T E"], weights: Weights, *, bandwidth: float
) -> Jumped:
    """JumpReLU (arXiv 2407.14435, equations 2, 11 and 12): K is 1 within half a bandwidth of the threshold."""
    assert weights.threshold is not None
    z_TF, theta = _pre(x_TD, weights), weights.threshold
    step_TF = (z_TF > theta).to(z_TF)
    K_TF = ((z_TF - theta).abs() < bandwidth / 2).to(z_TF)
    # θ − stop(θ) is 0 and has the gradient 1.
    moved = theta - theta.detach()
    f_TF = z_TF * step_TF - theta.detach() / bandwidth * K_TF * moved
    l0 = (step_TF - 1 / bandwidth * K_TF * moved).sum(1).mean()
    y_hat_TE = _decode(f_TF, weights)
    return Jumped(Reference(f_TF, y_hat_TE, (y_TE - y_hat_TE).square().mean()), l0)


def gated(
    x_TD: Float[Tensor, "T D"],
    y_TE: Float[Tensor, "T E"],
    weights: Weights,
    *,
    r_mag: Float[Tensor, " F"],
    b_mag: Float[Tensor, " F"],
    l1_coefficient: float,
) -> Reference:
    """Gated (arXiv 2404.16014, equations 6 to 8), over D; `weights.b_enc` is the gate's bias."""
    gate_TF = _pre(x_TD, weights)
    magnitude_TF = x_TD @ (r_mag.exp()[:, None] * weights.W_enc_FD).t() + b_mag
    f_TF = (gate_TF > 0) * magnitude_TF.relu()
    y_hat_TE = _decode(f_TF, weights)
    by_gate_TE = gate_TF.relu() @ weights.W_dec_FE.detach() + weights.b_dec.detach()
    loss_T = (y_TE - y_hat_TE).square().sum(1) + (y_TE - by_gate_TE).square().sum(1)
    loss_T = loss_T + l1_coefficient * gate_TF.relu().sum(1)
    return Reference(f_TF, y_hat_TE, loss_T.mean() / y_TE.shape[1])


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


def _largest_of_batch(pre_TF: Tensor, k: int) -> Tensor:
    """The k·T largest positive values where they stand, the first among equals, 0 elsewhere."""
    flat = pre_TF.flatten()
    best = flat.argsort(descending=True, stable=True)[: k * len(pre_TF)]
    return torch.zeros_like(flat).scatter(0, best, flat[best]).view_as(pre_TF).relu()
