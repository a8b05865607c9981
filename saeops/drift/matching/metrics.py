"""The figures that matching and carry-over report: docs/metrics.md says more on every one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from saeops.drift.matching.calibrate import Reference
from saeops.drift.matching.match import Matching
from saeops.metrics import Metric, registry
from saeops.stats import Bootstrap, Interval, ratio_interval, wilson

_OURS = "saeops"
_SHARE = "[0, 1]"
_SUPERIORITY = "Vargha & Delaney 2000, A measure"


@dataclass(frozen=True)
class CarriedOver:
    """What a carry-over's figures are measured on."""

    trusted: int
    """Labels that consumers of the old dictionary were shown: chosen, not rejected, of trusted confidence."""
    kept: int
    """Of these, how many stand in the new one."""
    confidences: Sequence[float]
    """Carried confidence of every label that was kept."""


def _share(kind: str, *, of_second: bool = False) -> "Metric[Matching]":
    side = "B" if of_second else "A"
    what = {
        "matched": "matched latents of A / living latents of A",
        "split": "latents of A that were split / living latents of A",
        "merged": "latents of A that were merged into others / living latents of A",
        "vanished": "vanished latents of A / living latents of A",
        "new": "new latents of B / living latents of B",
    }[kind]
    better = {"matched": "higher", "vanished": "lower"}.get(kind, "none")

    def measure(found: Matching, _: Bootstrap) -> Interval:
        kinds = found.kinds.second_G if side == "B" else found.kinds.first_F
        return wilson(int((kinds == kind).sum()), len(kinds), unit="latents")

    return Metric(f"match_{kind}_fraction", "1", better, what, _OURS, _SHARE, measure)  # type: ignore[arg-type]


def _mean(values: Sequence[float] | np.ndarray, draw: Bootstrap, unit: str = "latents") -> Interval:
    numbers = np.asarray(values, dtype=np.float64)
    ones = np.ones_like(numbers)
    return ratio_interval(numbers, ones, resamples=draw.resamples, seed=draw.seed, unit=unit)


def _matched_cosine(found: Matching, draw: Bootstrap) -> Interval:
    return _mean(found.pairs.cosine_P[found.kinds.first_F[found.row_P] == "matched"], draw)


def _beyond_null(found: Matching, draw: Bootstrap) -> Interval:
    return _mean(found.null.superiority(found.found.of_rows.score_F), draw)


def _beside_seeds(found: Matching, draw: Bootstrap) -> Interval:
    reference = found.seeds
    assert reference is not None
    return _mean(_placed(reference, found), draw)


def _placed(reference: Reference, found: Matching) -> np.ndarray:
    from saeops.drift.matching.calibrate import NO_PAIR

    return reference.superiority(np.nan_to_num(found.found.score_F, nan=NO_PAIR))


MATCHING: tuple[Metric[Matching], ...] = (
    _share("matched"),
    _share("split"),
    _share("merged"),
    _share("vanished"),
    _share("new", of_second=True),
    Metric(
        "match_cosine",
        "1",
        "higher",
        "mean over matched pairs of the cosine of their decoder rows",
        "Paulo & Belrose 2025, arXiv 2501.16615",
        "[−1, 1]",
        _matched_cosine,
    ),
    Metric(
        "match_beyond_null",
        "1",
        "higher",
        "P(best score of a latent of A in B > best score of one in B permuted), ties half",
        _SUPERIORITY,
        _SHARE,
        _beyond_null,
    ),
)

BESIDE_SEEDS: tuple[Metric[Matching], ...] = (
    Metric(
        "match_beside_seeds",
        "1",
        "higher",
        "P(score of a latent of A and its partner > score of one and its partner in another seed), ties half",
        _SUPERIORITY,
        _SHARE,
        _beside_seeds,
    ),
)
"""Where a dictionary of another seed is at hand."""

CARRY_OVER: tuple[Metric[CarriedOver], ...] = (
    Metric(
        "carry_over_coverage",
        "1",
        "higher",
        "trusted labels of the old dictionary that stand in the new one / trusted labels of the old one",
        _OURS,
        _SHARE,
        lambda carried, _: wilson(carried.kept, carried.trusted, unit="labels"),
    ),
    Metric(
        "carry_over_confidence",
        "1",
        "higher",
        "mean over carried labels of the carried confidence",
        _OURS,
        _SHARE,
        lambda carried, draw: _mean(carried.confidences, draw, unit="labels"),
    ),
)

METRICS = registry((*MATCHING, *BESIDE_SEEDS, *CARRY_OVER))
