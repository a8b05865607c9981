"""Centring and scaling of activations: estimated once, stored, folded into the weights at the end.

# T token, D d_model
"""

import math
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from saeops.errors import NonFinite
from saeops.sae.folding import Scaling

SAMPLE_TOKENS = 16_384
"""Tokens from which mean and scale are estimated."""


class Normalisation(Scaling):
    """x → s·(x − μ), so that the mean is 0 and E‖x‖² = d_model.

    Centring removes feature death (arXiv 2605.31518), and makes 0 the right
    start for b_dec; the scale makes one learning rate and one L1 coefficient
    fit every site (Scaling Monosemanticity, 2024).
    """

    @classmethod
    def estimate(cls, x_TD: Float[Tensor, "T D"]) -> Self:
        """From a sample of activations.

        Raises:
            NonFinite: the sample holds NaN or infinity, or does not vary at all.
        """
        mean = x_TD.double().mean(0)
        squared_norm = float((x_TD - mean).square().sum(1).mean())
        if not math.isfinite(squared_norm):
            raise NonFinite("activations hold NaN or infinity", hint="remove the set and run `saeops harvest`")
        if squared_norm == 0:
            raise NonFinite("activations are all the same: there is nothing to learn", hint="harvest another site")
        return cls(mean.float(), math.sqrt(x_TD.shape[1] / squared_norm))

    def apply(self, x_TD: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        """s·(x − μ), fp32."""
        return (x_TD.float() - self.mean) * self.scale

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        return type(self)(self.mean.to(device), self.scale)
