"""Whether all contenders train the same problem: the same weights must make the same of the same batch.

The oracle is dense and plain: f = act(x W_enc + b_enc), x̂ = f W_dec.

# T token, D d_model, F latent
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.contender import Common, Contender, Reading, fvu

AGREEING = 0.99
"""Share of tokens that must agree: near ties at the edge of a top-k may fall either way in fp32."""


@dataclass(frozen=True)
class Agreement:
    """One contender beside the oracle."""

    label: str
    error: float
    """‖x̂ − x̂_oracle‖ / ‖x‖, at the token that 99 % of tokens do not exceed: x̂ may be 0."""
    fvu: float
    """Of the forward pass that training differentiates."""
    fvu_error: float
    """Relative to the oracle's."""
    l0: float
    tolerance: float

    @property
    def holds(self) -> bool:
        return max(self.error, self.fvu_error) <= self.tolerance

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "same": self.holds}


@dataclass(frozen=True)
class Sameness:
    """The oracle's figures and everybody's agreement with it."""

    fvu: float
    l0: float
    agreements: tuple[Agreement, ...]

    @property
    def holds(self) -> bool:
        return all(agreement.holds for agreement in self.agreements)

    def to_json(self) -> dict[str, Any]:
        return {"fvu": self.fvu, "l0": self.l0, "contenders": [each.to_json() for each in self.agreements]}


def common_weights(x_TD: Tensor, *, d_sae: int, k: int, seed: int = 7) -> Common:
    """Random weights that fire about k latents a token through a threshold."""
    g = torch.Generator().manual_seed(seed)
    W_dec_FD = torch.nn.functional.normalize(torch.randn(d_sae, x_TD.shape[1], generator=g), dim=1)
    noise_DF = torch.randn(x_TD.shape[1], d_sae, generator=g) / x_TD.shape[1] ** 0.5
    W_enc_DF = W_dec_FD.t() + 0.1 * noise_DF
    scale = float(x_TD.square().mean().sqrt())
    b_enc = 0.1 * scale * torch.randn(d_sae, generator=g)
    pre_TF = x_TD[:1024] @ W_enc_DF + b_enc
    # Between two values: one that equals it would fire or not by rounding.
    edge = pre_TF.flatten().topk(k * len(pre_TF) + 1).values[-2:].mean()
    return Common(W_enc_DF, b_enc, W_dec_FD, max(float(edge), 1e-3 * scale))


def oracle(variant: str, weights: Common, x_TD: Tensor, *, k: int) -> Reading:
    """The dense reference."""
    pre_TF = x_TD @ weights.W_enc_DF + weights.b_enc
    match variant:
        case "topk":
            f_TF = _keep(pre_TF.relu(), k)
        case "batch_topk" | "matryoshka":
            f_TF = _keep(pre_TF.relu().view(1, -1), k * len(x_TD)).view_as(pre_TF)
        case "jumprelu" | "gated":
            f_TF = pre_TF * (pre_TF > weights.threshold)
        case "relu_l1":
            f_TF = (pre_TF - weights.threshold).relu()
        case _:
            raise ValueError(variant)
    return Reading(f_TF @ weights.W_dec_FD, f_TF > 0)


def agreement(contender: Contender, weights: Common, x_TD: Tensor) -> Agreement:
    """Put the weights into a contender, and compare its training path with the oracle's."""
    problem = contender.problem
    truth = oracle(problem.variant, weights, x_TD, k=problem.k)
    wanted = fvu(x_TD, truth.x_hat_TD)
    contender.put(weights)
    reading = contender.read(x_TD, training=True)
    error_T = (reading.x_hat_TD - truth.x_hat_TD).norm(dim=1) / x_TD.norm(dim=1).clamp(min=1e-12)
    error = float(error_T.quantile(AGREEING))
    found = contender.training_fvu(x_TD)
    off = abs(found - wanted) / wanted
    return Agreement(contender.recipe.label, error, found, off, reading.l0, contender.tolerance)


def _keep(f: Tensor, k: int) -> Tensor:
    best = f.topk(k, dim=1)
    return torch.zeros_like(f).scatter_(1, best.indices, best.values)
