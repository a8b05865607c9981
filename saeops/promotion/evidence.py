"""Evidence: all that the judge sees of a bundle, read from the bundle alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from saeops.dictionary.bundle import Bundle
from saeops.digests import digest_json
from saeops.metrics import read_metrics
from saeops.review.config import ReviewConfig
from saeops.review.outcome import ReviewOutcome, review_outcome
from saeops.review.queue import QueueItem, measured_effects, review_queue
from saeops.stats import Interval

METRIC_FILES = ("diagnostics/metrics.json", "labels/metrics.json", "effects/metrics.json")


@dataclass(frozen=True)
class Evidence:
    """A bundle's figures and its review."""

    bundle: str
    """Digest of the bundle."""
    metrics: Mapping[str, Interval]
    review: ReviewOutcome

    @cached_property
    def digest(self) -> str:
        """sha256 of all of it."""
        return digest_json(self.to_json())

    def to_json(self) -> dict[str, Any]:
        metrics = {name: interval.to_json() for name, interval in self.metrics.items()}
        return {"bundle": self.bundle, "metrics": metrics, "review": self.review.to_json()}


def gather(bundle: Bundle) -> Evidence:
    """Read a verified bundle's figures, and what its own decisions say about its own queue.

    Raises:
        FolderDamaged: a metrics file that does not hold intervals.
    """
    present = [bundle.path / file for file in METRIC_FILES if (bundle.path / file).exists()]
    metrics = {name: interval for file in present for name, interval in read_metrics(file).items()}
    return Evidence(bundle.digest, metrics, review_of(bundle))


def review_of(bundle: Bundle) -> ReviewOutcome:
    """What the decisions sealed into the bundle add up to, on the queue of the candidate they were made on."""
    return review_outcome(queue_of(bundle), bundle.reviews(), bundle=bundle.candidate)


def queue_of(bundle: Bundle) -> tuple[QueueItem, ...]:
    """The labels people should look at, by the bundle's own params: the same bundle, the same queue."""
    params = bundle.provenance.params
    return review_queue(
        bundle.labels(),
        bundle.latents(),
        measured_effects(bundle.effects()),
        config=ReviewConfig.model_validate(params["review"]),
        trusted=float(params["promote"]["trusted_confidence"]),
        digest=bundle.candidate,
    )
