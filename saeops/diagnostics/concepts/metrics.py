"""The figures of known concepts: one declaration each. docs/metrics.md says more on every one.

# K row of the table that was measured (a concept, or a letter), U document, R resample
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.special import xlogy

from saeops.metrics import Metric
from saeops.stats import Bootstrap, Interval, percentile_interval, resample_counts, rule_of_three

Array = np.ndarray
Lists = Callable[[pd.DataFrame], Float[Array, "K U"]]


def _list(column: str) -> Lists:
    return lambda rows: np.array([list(values) for values in rows[column]], dtype=np.float64)


def _base_loss(rows: pd.DataFrame) -> Float[Array, "K U"]:
    """What guessing the sample's base rate loses on each document."""
    positive_KU, token_KU = _list("document_positives")(rows), _list("document_tokens")(rows)
    rate_K1 = positive_KU.sum(1, keepdims=True) / token_KU.sum(1, keepdims=True)
    return -(xlogy(positive_KU, rate_K1) + xlogy(token_KU - positive_KU, 1 - rate_K1))


def mean_of_ratios(
    rows: pd.DataFrame, above: Lists, below: Lists, draw: Bootstrap, *, complement: bool = False
) -> Interval:
    """Mean over measured rows of Σ above / Σ below (or 1 − that), with a bootstrap over documents.

    A row whose denominator is 0 in a resample has no ratio there.
    """
    measured = rows[rows["measured"]]
    if measured.empty:
        return Interval(0.0, None, None, 0, "documents", note="nothing of it could be measured")
    above_KU, below_KU = above(measured), below(measured)
    read_U = below_KU.any(axis=0)
    above_KU, below_KU = above_KU[:, read_U], below_KU[:, read_U]

    def mean(counts_RU: Array) -> Array:
        over_RK, under_RK = counts_RU @ above_KU.T, counts_RU @ below_KU.T
        has_RK = under_RK > 0
        top_RK = np.where(has_RK, under_RK - over_RK if complement else over_RK, 0.0)
        total_R = (top_RK / np.where(has_RK, under_RK, 1.0)).sum(1)
        some_R = has_RK.any(1)
        return np.asarray(total_R[some_R] / has_RK[some_R].sum(1))

    n = int(read_U.sum())
    point = float(mean(np.ones((1, n)))[0])
    draws = mean(resample_counts(n, resamples=draw.resamples, seed=draw.seed))
    return percentile_interval(point, draws, n=n, unit="documents")


def absorption_rate(rows: pd.DataFrame, draw: Bootstrap) -> Interval:
    """Mean over letters; where nothing is absorbed the rule of three says how much still may be."""
    interval = mean_of_ratios(rows, _list("document_absorbed"), _list("document_right"), draw)
    words = int(rows.loc[rows["measured"], "right"].sum())
    if interval.high is None or interval.point > 0:
        return interval
    return replace(interval, high=rule_of_three(words, level=interval.level), note=f"none of {words} words")


_GAO = "Gao et al. 2024, arXiv 2406.04093, §4.2; chosen and judged on different documents by saeops"
_SAEBENCH = "SAEBench, absorption; after Chanin et al. 2024, arXiv 2409.14507"

PROBES: tuple[Metric[pd.DataFrame], ...] = (
    Metric(
        "probe_loss_nats",
        "nats",
        "lower",
        "mean over concepts of the cross-entropy a token of a logistic probe on the one latent that tells it best",
        _GAO,
        "[0, ∞)",
        lambda rows, draw: mean_of_ratios(rows, _list("document_loss"), _list("document_tokens"), draw),
    ),
    Metric(
        "probe_explained",
        "1",
        "higher",
        "mean over concepts of 1 − probe loss / entropy of the concept",
        "McFadden 1974 (pseudo-R²), of the probe loss",
        "[0, 1]",
        lambda rows, draw: mean_of_ratios(rows, _list("document_loss"), _base_loss, draw, complement=True),
    ),
)
"""Measured on ConceptTable."""

ABSORPTION: tuple[Metric[pd.DataFrame], ...] = (
    Metric(
        "absorption_rate",
        "1",
        "lower",
        "mean over first letters of words that one other latent absorbs / words on which the probe is right",
        _SAEBENCH,
        "[0, 1]",
        absorption_rate,
    ),
    Metric(
        "absorption_fraction",
        "1",
        "lower",
        "mean over first letters and words of the share of the letter that latents other than its own carry",
        _SAEBENCH,
        "[0, 1]",
        lambda rows, draw: mean_of_ratios(rows, _list("document_fraction"), _list("document_right"), draw),
    ),
)
"""Measured on LetterTable."""
