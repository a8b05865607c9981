"""Verdicts on latents: kept, weakened, changed, lost, or too few firings to tell.

# F latent
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from saeops.drift.audit.bounds import Bounded, correlation, ratio
from saeops.drift.audit.config import LatentPolicy
from saeops.drift.audit.record import LatentCounts, LatentVerdict
from saeops.drift.audit.sums import Exposed

Array = np.ndarray
Pairing = Literal["tokens", "documents", "none"]
"""What the two sides share: tokens; documents only, where the tokenizers differ; nothing, in a null."""
Verdict = LatentVerdict | Literal["too_few"]
GONE: tuple[LatentVerdict, ...] = ("weakened", "changed", "lost")
TAIL = 0.025
"""Of the intervals that are reported, and of what is called kept."""


@dataclass(frozen=True)
class JudgedLatents:
    """Every latent's figures and verdict."""

    verdict_F: Array
    tested_F: Bool[Array, " F"]
    """It fires often enough under the old model."""
    density: Bounded
    """New density ÷ old."""
    activation: Bounded
    """New mean activation over all tokens ÷ old."""
    correlation: Bounded | None
    """Of activations on the same tokens, or of document means; None where the sides share nothing."""
    alarm_tail: float
    """Chance that a single bound of a verdict is wrong, so that all of them together keep `false_alarms`."""

    @property
    def gone_F(self) -> Bool[Array, " F"]:
        """It is not what it was."""
        return np.isin(self.verdict_F, GONE)

    @property
    def counts(self) -> LatentCounts:
        names, counts = np.unique(self.verdict_F, return_counts=True)
        return LatentCounts(**dict(zip(names.tolist(), counts.tolist(), strict=True)))


def judge_latents(exposed: Exposed, policy: LatentPolicy, *, pairing: Pairing) -> JudgedLatents:
    """Judge bounds, not points.

    A latent is called weakened, changed or lost only where a bound that holds over all latents together
    (Bonferroni) lies beyond the policy's limit, and kept only where its own 95 % intervals lie inside all of them.
    Between the two, and with too few firings, it is too few to tell.
    """
    F = exposed.latents
    density, activation = ratio(exposed, "n_old", "n_new"), ratio(exposed, "old", "new")
    same = _correlation(exposed, pairing)
    tested = exposed.sums.by_latent("n_old", F) >= policy.min_firings
    tested &= exposed.sums.documents_by_latent("n_old", F) >= policy.min_documents
    tail = policy.false_alarms / (max(int(tested.sum()), 1) * (2 if same is None else 3))
    weaker = tested & (activation.high_F(tail) < policy.weakened_below)
    grown = tested & (activation.low_F(tail) > policy.grown_above)
    other, alike = np.zeros(F, dtype=bool), np.ones(F, dtype=bool)
    if same is not None:
        other = tested & (same.high_F(tail) < policy.same_correlation)
        alike = same.low_F(TAIL) >= policy.same_correlation
    as_strong = (activation.low_F(TAIL) >= policy.weakened_below) & (activation.high_F(TAIL) <= policy.grown_above)
    verdict = np.full(F, "too_few", dtype=object)
    verdict[tested & alike & as_strong] = "kept"
    verdict[weaker] = "weakened"
    verdict[other | grown] = "changed"
    verdict[weaker & (activation.point_F < policy.lost_below)] = "lost"
    return JudgedLatents(verdict, tested, density, activation, same, tail)


def _correlation(exposed: Exposed, pairing: Pairing) -> Bounded | None:
    match pairing:
        case "tokens":
            return correlation(exposed)
        case "documents":
            return correlation(exposed.as_documents())
        case "none":
            return None


def points(bounded: Bounded | None, latents: int) -> tuple[Float[Array, " F"], ...]:
    """Point, low and high at 95 %; NaN where there is nothing to say."""
    if bounded is None:
        nothing = np.full(latents, np.nan)
        return nothing, nothing, nothing
    return bounded.point_F, bounded.low_F(TAIL), bounded.high_F(TAIL)
