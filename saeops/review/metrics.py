"""The figure that review reports: docs/metrics.md says more on it."""

from collections.abc import Sequence

from saeops.metrics import Metric, registry
from saeops.stats import Interval, wilson


def acceptance(verdicts: Sequence[str]) -> Interval:
    """Share of the decided labels that were accepted or edited."""
    kept = sum(verdict != "reject" for verdict in verdicts)
    return wilson(kept, len(verdicts), unit="reviewed labels")


REVIEW: tuple[Metric[Sequence[str]], ...] = (
    Metric(
        "review_acceptance",
        "1",
        "higher",
        "accepted or edited / decided, over the queue’s random sample",
        "saeops",
        "[0, 1]",
        lambda verdicts, _: acceptance(verdicts),
    ),
)
"""Measured on the verdicts on the random sample."""

METRICS = registry(REVIEW)
