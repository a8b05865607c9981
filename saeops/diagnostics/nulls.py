"""Nulls: what a reconstruction is worth that knows nothing of features.

# T token, D d_model, E width of a transcoder's target, K rank
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


@dataclass(frozen=True)
class ReducedRank:
    """The best linear map of rank K from one site to another: what PCA is where both are one.

    Reduced-rank regression (Izenman 1975, J. Multivariate Analysis 5:248): least squares, then the first K
    principal directions of what it predicts.
    """

    mean_in: Float[Tensor, " D"]
    read_DK: Float[Tensor, "D K"]
    write_KE: Float[Tensor, "K E"]
    mean_out: Float[Tensor, " E"]

    @classmethod
    def fit(cls, x_TD: Float[Tensor, "T D"], y_TE: Float[Tensor, "T E"], rank: int) -> Self:
        """From the covariances of x and y; a rank above E counts as E."""
        x_TD, y_TE = x_TD.double(), y_TE.double()
        mean_in, mean_out = x_TD.mean(0), y_TE.mean(0)
        x_TD, y_TE = x_TD - mean_in, y_TE - mean_out
        across_DE = x_TD.T @ y_TE
        least_squares_DE = torch.linalg.pinv(x_TD.T @ x_TD, hermitian=True) @ across_DE
        predicted_EE = across_DE.T @ least_squares_DE
        _, directions = torch.linalg.eigh((predicted_EE + predicted_EE.T) / 2)
        basis_EK = directions[:, directions.shape[1] - min(rank, directions.shape[1]) :]
        return cls(mean_in.float(), (least_squares_DE @ basis_EK).float(), basis_EK.T.float(), mean_out.float())

    def predict(self, x_TD: Float[Tensor, "T D"]) -> Float[Tensor, "T E"]:
        """The mean of y plus what the map makes of x."""
        return self.mean_out + (x_TD - self.mean_in) @ self.read_DK @ self.write_KE
