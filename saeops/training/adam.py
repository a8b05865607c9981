"""Adam (Kingma & Ba 2015, arXiv 1412.6980) with clipping and the decoder's constraint.

Rows that are held at unit norm are treated in this order: the part of the
gradient along the row is taken off, for it would only change the length; the
step is made; the row is brought back to length 1.

# F latent, D d_model
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim.adam import adam

BETAS = (0.9, 0.999)
EPS = 6.25e-10
"""As in arXiv 2406.04093: gradients of a mean over so many elements are small; 1e-8 would damp rare latents."""


@dataclass(frozen=True)
class Moments:
    """Adam's running means of a parameter's gradient and of its square, fp32."""

    first: Tensor
    second: Tensor


@dataclass
class Adam:
    """One optimiser over named parameters.

    Args:
        unit_rows: names of matrices whose rows are held at unit norm.
    """

    parameters: Mapping[str, Tensor]
    unit_rows: frozenset[str]
    moments: dict[str, Moments]
    step_count: int = 0

    @classmethod
    def of(cls, parameters: Mapping[str, Tensor], *, unit_rows: frozenset[str]) -> Self:
        """Before the first step."""
        zeros = {name: Moments(torch.zeros_like(p), torch.zeros_like(p)) for name, p in parameters.items()}
        return cls(parameters, unit_rows, zeros)

    @torch.no_grad()
    def prepare(self) -> float:
        """Take off what the constraint forbids; gives the norm of the gradient that is left."""
        for name in self.unit_rows:
            row, gradient = self.parameters[name], _gradient(self.parameters[name])
            along = (gradient * row).sum(1, keepdim=True)
            gradient.addcmul_(along, row, value=-1)
        return float(get_total_norm(_gradient(p) for p in self.parameters.values()))

    @torch.no_grad()
    def step(self, *, lr: float, grad_norm: float, clip: float) -> None:
        """One step, with the gradient scaled down to the norm `clip` where it is longer."""
        self.step_count += 1
        scale = min(1.0, clip / (grad_norm + 1e-6))
        parameters = list(self.parameters.values())
        gradients = [_gradient(p).mul_(scale) if scale < 1 else _gradient(p) for p in parameters]
        # The functional form counts the step up itself.
        steps = [torch.tensor(float(self.step_count - 1), device=p.device) for p in parameters]
        adam(
            parameters,
            gradients,
            [self.moments[name].first for name in self.parameters],
            [self.moments[name].second for name in self.parameters],
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=lr,
            weight_decay=0.0,
            eps=EPS,
            maximize=False,
        )
        for name in self.unit_rows:
            row = self.parameters[name]
            row.div_(row.norm(dim=1, keepdim=True))

    def clear(self) -> None:
        """Drop the gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
