"""What a score means: beside a permuted dictionary, and beside a dictionary of another seed.

# N score of a reference, F latent, P score to place
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats as scipy_stats

from saeops.drift.matching.assign import Scores, assign, blocks
from saeops.drift.matching.config import MatchConfig
from saeops.drift.matching.scores import Likeness, Side

Array = np.ndarray

NO_PAIR = -1.0
"""Score of a latent that found no partner: below every pair's."""


@dataclass(frozen=True)
class Shares:
    """A proportion for each score, with Wilson's interval (1927) at 95 %."""

    point_P: Float[Array, " P"]
    low_P: Float[Array, " P"]
    high_P: Float[Array, " P"]


@dataclass(frozen=True)
class Reference:
    """Scores to place others among."""

    score_N: Float[Array, " N"]
    """Ascending."""

    def __len__(self) -> int:
        return len(self.score_N)

    def at_least(self, score_P: Float[Array, " P"]) -> Shares:
        """Share of the reference that scores as much or more."""
        return self._shares(len(self) - np.searchsorted(self.score_N, score_P, side="left"))

    def at_most(self, score_P: Float[Array, " P"]) -> Shares:
        """Share of the reference that scores as much or less."""
        return self._shares(np.searchsorted(self.score_N, score_P, side="right"))

    def superiority(self, score_P: Float[Array, " P"]) -> Float[Array, " P"]:
        """Share of the reference below each score, ties half: their mean is the probability of superiority.

        Vargha & Delaney 2000, J. of Educational and Behavioral Statistics 25:101 (A; 1/2 where nothing differs).
        """
        below_P = np.searchsorted(self.score_N, score_P, side="left")
        return (below_P + np.searchsorted(self.score_N, score_P, side="right")) / (2 * len(self))

    def quantile(self, share: float) -> float:
        return float(np.quantile(self.score_N, share))

    def _shares(self, hits_P: Float[Array, " P"]) -> Shares:
        n, z = len(self), float(scipy_stats.norm.ppf(0.975))
        p_P = hits_P / n
        centre_P = (p_P + z * z / (2 * n)) / (1 + z * z / n)
        half_P = z * np.sqrt(p_P * (1 - p_P) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        low_P = np.where(hits_P == 0, 0.0, np.maximum(0, centre_P - half_P))
        high_P = np.where(hits_P == n, 1.0, np.minimum(1, centre_P + half_P))
        return Shares(p_P, low_P, high_P)


def permuted_null(first: Side, second: Side, config: MatchConfig, *, seed: int) -> Reference:
    """Best scores of latents drawn at random with the other side permuted (`Side.permuted`).

    A best score is at least that of an assigned pair, so no match is called better than chance too easily.
    """
    generator = np.random.default_rng([seed, 0])
    drawn = np.sort(generator.permutation(len(first))[: config.null_latents])
    null = Likeness(first, second.permuted(generator), config.activation_weight)
    return Reference(np.sort(best_of_rows(null, drawn)))


def best_of_rows(scores: Scores, rows: Array) -> Float[Array, " C"]:
    """The largest score of each of these rows."""
    found = [scores.block(row_C).max(dim=1).values for row_C in blocks(rows, scores.columns)]
    return np.concatenate([values.double().numpy() for values in found])


def seed_reference(side: Side, other: Side, config: MatchConfig) -> Reference:
    """Scores of a dictionary's latents with their partners in one of another seed, `NO_PAIR` without one."""
    likeness = Likeness(side, other, config.activation_weight)
    found = assign(likeness, floor=config.least_score, candidates=config.candidates)
    return Reference(np.sort(np.nan_to_num(found.score_F, nan=NO_PAIR)))
