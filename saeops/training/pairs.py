"""Batches as pairs of input and target: what makes an autoencoder or a transcoder of any variant.

# T token, D d_model of the input, E d_model of the target
"""

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from saeops.training.normalise import Normalisation


@dataclass(frozen=True)
class Pair:
    """The same tokens at the input site and at the target site."""

    x_TD: Float[Tensor, "T D"]
    y_TE: Float[Tensor, "T E"]
    """The very tensor of the inputs where an autoencoder is trained."""

    @classmethod
    def same(cls, x_TD: Float[Tensor, "T D"]) -> Self:
        """An autoencoder's batch."""
        return cls(x_TD, x_TD)

    @property
    def transcodes(self) -> bool:
        """Whether input and target are different."""
        return self.y_TE is not self.x_TD

    def to(self, device: torch.device) -> "Pair":
        """The same on another device."""
        x_TD = self.x_TD.to(device)
        return Pair(x_TD, self.y_TE.to(device)) if self.transcodes else Pair.same(x_TD)

    def __len__(self) -> int:
        return len(self.x_TD)


@dataclass(frozen=True)
class PairNormalisation:
    """Both sides' normalisation; one and the same where an autoencoder is trained."""

    input: Normalisation
    target: Normalisation

    @classmethod
    def estimate(cls, sample: Pair) -> Self:
        """From a sample of raw activations.

        Raises:
            NonFinite: the sample holds NaN or infinity, or does not vary at all.
        """
        one = Normalisation.estimate(sample.x_TD)
        return cls(one, Normalisation.estimate(sample.y_TE) if sample.transcodes else one)

    @property
    def transcodes(self) -> bool:
        """Whether input and target are different."""
        return self.target is not self.input

    def apply(self, raw: Pair) -> Pair:
        """Both sides with mean 0 and E‖·‖² = width, fp32."""
        x_TD = self.input.apply(raw.x_TD)
        return Pair(x_TD, self.target.apply(raw.y_TE)) if self.transcodes else Pair.same(x_TD)

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        one = self.input.to(device)
        return type(self)(one, self.target.to(device) if self.transcodes else one)
