"""Reconstruction: how much of the activations the SAE gives back.

x is what is to be given back: a transcoder's target, which it reads elsewhere.
Everything is a sum over tokens, in float64, added up by group: with documents
as groups the sums give the metrics and their bootstrap, with positions a
profile.

# T token, D d_model (of what is given back), G group (a document, or a position), S sum
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

Array = np.ndarray

SUMS = ("tokens", "values", "error", "spread", "square", "cosine", "norm_out", "dot", "fired")
"""The columns that `Sums` adds up.

tokens; values: tokens × D; error: Σ‖x − x̂‖²; spread: Σ‖x − μ‖²; square: Σ‖x‖²; cosine: Σ cos(x, x̂);
norm_out: Σ‖x̂‖²; dot: Σ x·x̂; fired: Σ latents > 0.
"""


@dataclass(frozen=True)
class TokenSums:
    """What each token adds to its group, in the order of `SUMS`."""

    value_TS: Float[Tensor, "T S"]

    @classmethod
    def of(
        cls,
        x_TD: Float[Tensor, "T D"],
        x_hat_TD: Float[Tensor, "T D"],
        mean_D: Float[Tensor, " D"],
        l0_T: Int[Tensor, " T"],
    ) -> "TokenSums":
        """From activations, their reconstruction, μ, and how many latents fire.

        Args:
            mean_D: mean of all evaluated tokens, float64.
        """
        x, x_hat = x_TD.cpu().double(), x_hat_TD.cpu().double()
        one_T = torch.ones(len(x), dtype=torch.float64)
        square_T, norm_out_T, dot_T = x.square().sum(1), x_hat.square().sum(1), (x * x_hat).sum(1)
        length_T = (square_T * norm_out_T).sqrt()
        columns = (
            one_T,
            x.shape[1] * one_T,
            (x - x_hat).square().sum(1),
            (x - mean_D).square().sum(1),
            square_T,
            # A token whose reconstruction is 0 points nowhere: its cosine counts as 0.
            torch.where(length_T > 0, dot_T / length_T.clamp_min(1e-300), 0.0),
            norm_out_T,
            dot_T,
            l0_T.cpu().double(),
        )
        return cls(torch.stack(columns, dim=1))


class Meter:
    """Adds up `TokenSums` by group; memory by groups, not by tokens."""

    def __init__(self, groups: int) -> None:
        self._sum_GS = torch.zeros(groups, len(SUMS), dtype=torch.float64)

    def add(self, group_T: Int[Tensor, " T"], sums: TokenSums) -> None:
        """Tokens; group_T says which group each belongs to."""
        self._sum_GS.index_add_(0, group_T.cpu().long(), sums.value_TS)

    def frame(self) -> pd.DataFrame:
        """What was added so far: a row a group, empty ones included, a column a sum."""
        return pd.DataFrame(self._sum_GS.numpy().copy(), columns=list(SUMS))


def profile(groups: pd.DataFrame) -> Float[Array, " G"]:
    """Explained variance of each group against the mean of all; NaN where a group is empty."""
    spread, error = groups["spread"].to_numpy(), groups["error"].to_numpy()
    shares = np.full(len(groups), np.nan)
    some = (groups["tokens"].to_numpy() > 0) & (spread > 0)
    shares[some] = 1 - error[some] / spread[some]
    return shares
