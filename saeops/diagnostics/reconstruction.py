"""Reconstruction: how much of the activations the SAE gives back.

x is what is to be given back: a transcoder's target, which it reads elsewhere.
Everything is computed from sums a group of tokens, in float64: with documents
as groups they give the metrics and their bootstrap, with positions a profile.

# T token, D d_model, G group (a document, or a position), R resample
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saeops.stats import Interval, percentile_interval, ratio_interval, resample_counts

Array = np.ndarray


@dataclass(frozen=True)
class ReconstructionSums:
    """Sums over the tokens of each group."""

    tokens: Float[Array, " G"]
    error: Float[Array, " G"]
    """Σ ‖x − x̂‖²"""
    square: Float[Array, " G"]
    """Σ ‖x‖²"""
    total_GD: Float[Array, "G D"]
    """Σ x"""
    cosine: Float[Array, " G"]
    """Σ cos(x, x̂)"""

    @property
    def mean(self) -> Float[Array, " D"]:
        """μ, the mean of all evaluated tokens."""
        return self.total_GD.sum(0) / self.tokens.sum()

    def seen(self) -> "ReconstructionSums":
        """Only the groups that hold a token."""
        keep = self.tokens > 0
        return ReconstructionSums(
            self.tokens[keep], self.error[keep], self.square[keep], self.total_GD[keep], self.cosine[keep]
        )


class ReconstructionMeter:
    """Adds up `ReconstructionSums` from a stream of tokens; memory G × D."""

    def __init__(self, groups: int, d_model: int) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64)

        self._tokens, self._error, self._square = zeros(groups), zeros(groups), zeros(groups)
        self._total, self._cosine = zeros(groups, d_model), zeros(groups)

    def add(self, group_T: Int[Tensor, " T"], x_TD: Float[Tensor, "T D"], x_hat_TD: Float[Tensor, "T D"]) -> None:
        """Tokens with their reconstruction; group_T says which group each belongs to."""
        group_T, x_TD, x_hat_TD = group_T.cpu().long(), x_TD.cpu().double(), x_hat_TD.cpu().double()
        self._tokens.index_add_(0, group_T, torch.ones(len(x_TD), dtype=torch.float64))
        self._error.index_add_(0, group_T, (x_TD - x_hat_TD).square().sum(1))
        self._square.index_add_(0, group_T, x_TD.square().sum(1))
        self._total.index_add_(0, group_T, x_TD)
        self._cosine.index_add_(0, group_T, torch.cosine_similarity(x_TD, x_hat_TD, dim=1))

    def sums(self) -> ReconstructionSums:
        """What was added so far, empty groups included."""
        parts = (self._tokens, self._error, self._square, self._total, self._cosine)
        return ReconstructionSums(*(part.numpy().copy() for part in parts))


def variance(sums: ReconstructionSums) -> Float[Array, " G"]:
    """Σ ‖x − μ‖² of each group, μ being the mean of all groups' tokens together."""
    mu = sums.mean
    return sums.square - 2 * sums.total_GD @ mu + sums.tokens * (mu @ mu)


def explained_variance(sums: ReconstructionSums, *, resamples: int, seed: int) -> Interval:
    """1 − Σ‖x − x̂‖² / Σ‖x − μ‖² over all tokens.

    μ is the mean of the evaluated tokens, so predicting it everywhere scores
    exactly 0. The bootstrap draws documents and takes μ anew in each resample.
    """
    n = len(sums.tokens)
    spread = float(variance(sums).sum()) if n else 0.0
    if spread <= 0:
        return Interval(0.0, None, None, n, "documents", note="all evaluated tokens are alike")
    counts = resample_counts(n, resamples=resamples, seed=seed)
    mean_square = ((counts @ sums.total_GD) ** 2).sum(1) / (counts @ sums.tokens)
    spread_R = counts @ sums.square - mean_square
    error_R = counts @ sums.error
    draws = 1 - error_R[spread_R > 0] / spread_R[spread_R > 0]
    return percentile_interval(1 - float(sums.error.sum()) / spread, draws, n=n, unit="documents")


def reconstruction_metrics(sums: ReconstructionSums, *, resamples: int, seed: int) -> dict[str, Interval]:
    """The reconstruction metrics; `sums` has one group a document."""
    sums = sums.seen()
    d_model = sums.total_GD.shape[1]

    def ratio(numerator: Array, denominator: Array) -> Interval:
        return ratio_interval(numerator, denominator, resamples=resamples, seed=seed)

    return {
        "explained_variance": explained_variance(sums, resamples=resamples, seed=seed),
        "mse": ratio(sums.error, sums.tokens * d_model),
        "normalised_mse": ratio(sums.error, sums.square),
        "cosine": ratio(sums.cosine, sums.tokens),
    }


def profile(sums: ReconstructionSums) -> Float[Array, " G"]:
    """Explained variance of each group against the mean of all; NaN where a group is empty."""
    spread = variance(sums)
    shares = np.full(len(spread), np.nan)
    some = (sums.tokens > 0) & (spread > 0)
    shares[some] = 1 - sums.error[some] / spread[some]
    return shares
