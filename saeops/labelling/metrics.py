"""The figures that labelling reports, aggregated over latents: docs/metrics.md says more on every one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from saeops.labelling.labels import PATTERN
from saeops.metrics import Metric, registry
from saeops.stats import Bootstrap, Interval, ratio_interval, wilson

_OURS = "saeops"
_SHARE = "[0, 1]"


@dataclass(frozen=True)
class Labelled:
    """What the figures are measured on; latents are the unit, since they were drawn at random."""

    labels: pd.DataFrame
    """LabelTable."""
    shuffled: Sequence[float]
    """Confidences of labels tested on another latent's snippets."""
    trusted: float
    min_positives: int

    @cached_property
    def chosen(self) -> pd.DataFrame:
        """The label that counts of each latent."""
        return self.labels[self.labels["chosen"]]

    @cached_property
    def scored(self) -> pd.DataFrame:
        """Chosen labels that were tested on enough firing snippets."""
        return self.chosen[self.chosen["n_positive"] >= self.min_positives]

    @cached_property
    def read(self) -> pd.DataFrame:
        """Labels whose answers an LLM wrote."""
        return self.labels[self.labels["labeller"] != PATTERN]


def _mean(values: "pd.Series | Sequence[float]", draw: Bootstrap) -> Interval:
    numbers = np.asarray(values, dtype=np.float64)
    return _over_latents(numbers, np.ones_like(numbers), draw)


def _over_latents(above: np.ndarray, below: np.ndarray, draw: Bootstrap) -> Interval:
    return ratio_interval(above, below, resamples=draw.resamples, seed=draw.seed, unit="latents")


def _trusted_share(evidence: Labelled, _: Bootstrap) -> Interval:
    trusted = int((evidence.chosen["confidence"] >= evidence.trusted).sum())
    return wilson(trusted, len(evidence.chosen), unit="latents")


def _parse_failures(evidence: Labelled, draw: Bootstrap) -> Interval:
    failed, asked = (evidence.read[column].to_numpy(np.float64) for column in ("parse_failures", "asked"))
    return _over_latents(failed, asked, draw)


LABELS: tuple[Metric[Labelled], ...] = (
    Metric(
        "label_confidence",
        "1",
        "higher",
        "mean over labelled latents of max(0, low(TPR) + low(TNR) − 1) of the chosen label",
        _OURS,
        _SHARE,
        lambda evidence, draw: _mean(evidence.chosen["confidence"], draw),
    ),
    Metric(
        "label_shuffled_confidence",
        "1",
        "none",
        "label_confidence when each label is tested on another latent's snippets",
        _OURS,
        _SHARE,
        lambda evidence, draw: _mean(evidence.shuffled, draw),
    ),
    Metric(
        "labels_trusted_fraction",
        "1",
        "higher",
        "share of labelled latents whose chosen label has confidence ≥ promote.trusted_confidence",
        _OURS,
        _SHARE,
        _trusted_share,
    ),
    Metric(
        "label_tpr",
        "1",
        "higher",
        "mean over scored latents of the chosen label's TPR",
        _OURS,
        _SHARE,
        lambda evidence, draw: _mean(evidence.scored["tpr"], draw),
    ),
    Metric(
        "label_tnr",
        "1",
        "higher",
        "mean over scored latents of the chosen label's TNR",
        _OURS,
        _SHARE,
        lambda evidence, draw: _mean(evidence.scored["tnr"], draw),
    ),
    Metric(
        "label_precision",
        "1",
        "higher",
        "mean over scored latents of πTPR / (πTPR + (1 − π)FPR), π the latent's density",
        _OURS,
        _SHARE,
        lambda evidence, draw: _mean(evidence.scored["precision"], draw),
    ),
    Metric(
        "label_parse_failure_rate",
        "1",
        "lower",
        "Σ answers that could not be read / Σ answers asked for, over LLM labels",
        _OURS,
        _SHARE,
        _parse_failures,
    ),
)

METRICS = registry(LABELS)
