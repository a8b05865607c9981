"""Nulls: what a reconstruction is worth that knows nothing of features.

# T token, D d_model, K rank
"""

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Pca:
    """The first K principal directions round a mean: a dense code of the SAE's own size a token."""

    mean: Float[Tensor, " D"]
    basis_DK: Float[Tensor, "D K"]
    """Orthonormal columns."""

    @classmethod
    def fit(cls, x_TD: Float[Tensor, "T D"], rank: int) -> Self:
        """From the covariance of x; a rank above D counts as D."""
        x_TD = x_TD.double()
        mean = x_TD.mean(0)
        centred = x_TD - mean
        _, directions = torch.linalg.eigh(centred.T @ centred)
        # eigh sorts upwards, so the largest stand last.
        first = directions.shape[1] - min(rank, directions.shape[1])
        return cls(mean.float(), directions[:, first:].float())

    def reconstruct(self, x_TD: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        """The mean plus the projection on the basis."""
        return self.mean + (x_TD - self.mean) @ self.basis_DK @ self.basis_DK.T
