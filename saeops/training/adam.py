"""Adam (Kingma & Ba 2015, arXiv 1412.6980) with clipping and the decoder's constraint.

Rows that are held at unit norm are treated in this order: the part of the
gradient along the row is taken off, for it would only change the length; the
step is made; the row is brought back to length 1.

# F latent, D d_model
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.adam import adam

from saeops.sae.native.library import for_tensors

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
    def grad_norm(self) -> float:
        """Norm of the gradient that the constraint leaves."""
        return math.sqrt(sum(float(self._squared_norm(name)) for name in self.parameters))

    def _squared_norm(self, name: str) -> Float[Tensor, ""]:
        parameter, gradient = self.parameters[name], self._gradient(name)
        unit = name in self.unit_rows
        if (native := for_tensors(parameter, gradient)) is not None:
            return native.squared_norms(gradient, parameter if unit else None).double().sum()
        squared = gradient.square().sum()
        return squared - (gradient * parameter).sum(1).square().sum() if unit else squared

    @torch.no_grad()
    def step(self, *, lr: float, grad_norm: float, clip: float) -> None:
        """One step, with the gradient scaled down to the norm `clip` where it is longer."""
        self.step_count += 1
        scale = min(1.0, clip / (grad_norm + 1e-6))
        for name in self.parameters:
            self._move(name, lr=lr, scale=scale)

    def _move(self, name: str, *, lr: float, scale: float) -> None:
        row, gradient, moments = self.parameters[name], self._gradient(name), self.moments[name]
        unit = name in self.unit_rows
        if (native := for_tensors(row, gradient, moments.first, moments.second)) is not None:
            native.adam(
                row,
                gradient,
                moments.first,
                moments.second,
                lr=lr,
                betas=BETAS,
                eps=EPS,
                step=self.step_count,
                scale=scale,
                unit_rows=unit,
            )
            return
        if unit:
            gradient.addcmul_((gradient * row).sum(1, keepdim=True), row, value=-1)
        gradient.mul_(scale)
        _adam(row, gradient, moments, lr=lr, step=self.step_count)
        if unit:
            row.div_(row.norm(dim=1, keepdim=True))

    def _gradient(self, name: str) -> Tensor:
        gradient = self.parameters[name].grad
        assert gradient is not None
        return gradient

    def clear(self) -> None:
        """Drop the gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None


def _adam(parameter: Tensor, gradient: Tensor, moments: Moments, *, lr: float, step: int) -> None:
    adam(
        [parameter],
        [gradient],
        [moments.first],
        [moments.second],
        [],
        # The functional form counts the step up itself.
        [torch.tensor(float(step - 1), device=parameter.device)],
        fused=True,
        amsgrad=False,
        beta1=BETAS[0],
        beta2=BETAS[1],
        lr=lr,
        weight_decay=0.0,
        eps=EPS,
        maximize=False,
    )
