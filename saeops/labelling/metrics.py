"""The figures that labelling reports, aggregated over latents: docs/metrics.md says more on every one."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from saeops.labelling.labels import PATTERN
from saeops.metrics import Metric, registry
from saeops.stats import Interval, ratio_interval, wilson

_OURS = "saeops"

METRICS = registry(
    (
        Metric(
            "label_confidence",
            "1",
            "higher",
            "mean over labelled latents of max(0, low(TPR) + low(TNR) − 1) of the chosen label",
            _OURS,
        ),
        Metric(
            "label_shuffled_confidence",
            "1",
            "none",
            "label_confidence when each label is tested on another latent's snippets",
            _OURS,
        ),
        Metric(
            "labels_trusted_fraction",
            "1",
            "higher",
            "share of labelled latents whose chosen label has confidence ≥ promote.trusted_confidence",
            _OURS,
        ),
        Metric("label_tpr", "1", "higher", "mean over scored latents of the chosen label's TPR", _OURS),
        Metric("label_tnr", "1", "higher", "mean over scored latents of the chosen label's TNR", _OURS),
        Metric(
            "label_precision",
            "1",
            "higher",
            "mean over scored latents of πTPR / (πTPR + (1 − π)FPR), π the latent's density",
            _OURS,
        ),
        Metric(
            "label_parse_failure_rate",
            "1",
            "lower",
            "Σ answers that could not be read / Σ answers asked for, over LLM labels",
            _OURS,
        ),
    )
)


def aggregate(
    labels: pd.DataFrame,
    shuffled: Sequence[float],
    *,
    trusted: float,
    min_positives: int,
    resamples: int,
    seed: int,
) -> dict[str, Interval]:
    """The figures of a LabelTable; latents are the unit, since they were drawn at random.

    Args:
        shuffled: confidences of labels tested on another latent's snippets.
    """

    def mean(values: "pd.Series | Sequence[float]") -> Interval:
        numbers = np.asarray(values, dtype=np.float64)
        return ratio_interval(numbers, np.ones_like(numbers), resamples=resamples, seed=seed, unit="latents")

    chosen = labels[labels["chosen"]]
    scored = chosen[chosen["n_positive"] >= min_positives]
    read = labels[labels["labeller"] != PATTERN]
    return {
        "label_confidence": mean(chosen["confidence"]),
        "label_shuffled_confidence": mean(shuffled),
        "labels_trusted_fraction": wilson(
            int((chosen["confidence"] >= trusted).sum()), len(chosen), unit="latents"
        ),
        "label_tpr": mean(scored["tpr"]),
        "label_tnr": mean(scored["tnr"]),
        "label_precision": mean(scored["precision"]),
        "label_parse_failure_rate": ratio_interval(
            read["parse_failures"].to_numpy(np.float64),
            read["asked"].to_numpy(np.float64),
            resamples=resamples,
            seed=seed,
            unit="latents",
        ),
    }
