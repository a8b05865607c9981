"""Evidence: all that the judge sees of a bundle, read from the bundle alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from saeops.activations.policy import TokenPolicy
from saeops.activations.sites import Sites
from saeops.diagnostics import schema
from saeops.dictionary.bundle import Bundle
from saeops.digests import digest_json
from saeops.metrics import Nulls, read_metrics, read_nulls
from saeops.review.config import ReviewConfig
from saeops.review.outcome import ReviewOutcome, review_outcome
from saeops.review.queue import QueueItem, measured_effects, review_queue
from saeops.sae.canonical import META, SaeMeta
from saeops.stats import Interval
from saeops.tables import read_table

METRIC_FILES = ("diagnostics/metrics.json", "labels/metrics.json", "effects/metrics.json")

NULLS_AS_FIGURES = {
    ("shuffled", "label_confidence"): "label_shuffled_confidence",
    ("random_directions", "off_target_kl_nats"): "off_target_kl_random_nats",
}
"""(null, metric) → the figure that is the metric's null, where labelling or the bench reports it as its own."""

DIFFERENCES_AS_FIGURES = {
    ("random_directions", "steering_effect_nats"): "steering_vs_random_nats",
    ("random_directions", "ablation_effect_nats"): "ablation_vs_random_nats",
    ("random_directions", "panel_specificity_nats"): "panel_specificity_vs_random_nats",
}
"""(null, metric) → the figure that is metric − null, paired by the bench."""


class Slice(NamedTuple):
    """A metric on some of the tokens."""

    slice: str
    bucket: str
    metric: str


@dataclass(frozen=True)
class Basis:
    """What two bundles' figures must share to speak of the same thing."""

    model: str
    """Digest of the language model."""
    policy: TokenPolicy
    sites: Sites


@dataclass(frozen=True)
class Evidence:
    """A bundle's figures and its review."""

    bundle: str
    """Digest of the bundle."""
    metrics: Mapping[str, Interval]
    review: ReviewOutcome
    nulls: Nulls = field(default_factory=dict)
    slices: Mapping[Slice, Interval] = field(default_factory=dict)
    """In the order of the buckets."""
    documents: pd.DataFrame | None = None
    """EvalDocumentTable; None where an older saeops kept none. The bundle's digest vouches for it."""
    basis: Basis | None = None
    """None: not known, and taken to be the same as any other."""
    inapplicable: Mapping[str, str] = field(default_factory=dict)
    """Metric → why this bundle cannot have it, where that is no fault."""

    @cached_property
    def digest(self) -> str:
        """sha256 of all of it."""
        return digest_json(self.to_json())

    def to_json(self) -> dict[str, Any]:
        return {
            "bundle": self.bundle,
            "metrics": {name: interval.to_json() for name, interval in self.metrics.items()},
            "nulls": {
                null: {name: i.to_json() for name, i in found.items()} for null, found in self.nulls.items()
            },
            "slices": [[*key, interval.to_json()] for key, interval in self.slices.items()],
            "review": self.review.to_json(),
        }

    def null(self, null: str, metric: str) -> Interval | None:
        """What the metric is under a null, if that was measured."""
        found = self.nulls.get(null, {}).get(metric)
        return found or self.metrics.get(NULLS_AS_FIGURES.get((null, metric), ""))

    def beyond_null(self, null: str, metric: str) -> Interval | None:
        """metric − null, where the bench pairs the two."""
        return self.metrics.get(DIFFERENCES_AS_FIGURES.get((null, metric), ""))

    def buckets(self, slice: str, metric: str) -> list[str]:
        """The slice's buckets in which the metric was measured."""
        return [key.bucket for key in self.slices if (key.slice, key.metric) == (slice, metric)]


def gather(bundle: Bundle) -> Evidence:
    """Read a verified bundle's figures, and what its own decisions say about its own queue.

    Raises:
        FolderDamaged: a metrics file or table that does not hold what it should.
    """
    files = [bundle.path / file for file in METRIC_FILES if (bundle.path / file).exists()]
    diagnostics = bundle.path / "diagnostics"
    nulls, documents = diagnostics / schema.NULLS_FILE, diagnostics / schema.DOCUMENTS
    meta = SaeMeta.model_validate_json((bundle.path / "sae" / META).read_bytes())
    provenance = bundle.provenance
    return Evidence(
        bundle=bundle.digest,
        metrics={name: interval for file in files for name, interval in read_metrics(file).items()},
        review=review_of(bundle),
        nulls=read_nulls(nulls) if nulls.exists() else {},
        slices=read_slices(diagnostics / schema.SLICES),
        documents=read_table(documents, schema.EvalDocumentTable) if documents.exists() else None,
        basis=Basis(str(provenance.model["digest"]), provenance.policy, meta.sites),
    )


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
        dropped=_dropped(bundle),
    )


def _dropped(bundle: Bundle) -> set[int]:
    """Latents that an older dictionary's label was dropped from."""
    carried = bundle.carried()
    if carried is None:
        return set()
    fallen = carried[(carried["outcome"] == "dropped") & carried["latent"].notna()]
    return set(fallen["latent"].astype(int))


def _plain(figures: Mapping[str, Interval]) -> dict[str, Any]:
    return {name: interval.to_json() for name, interval in figures.items()}


def read_slices(path: Path) -> dict[Slice, Interval]:
    """A SliceTable, in the order of the buckets; empty where there is none."""
    if not path.exists():
        return {}
    table = read_table(path, schema.SliceTable).sort_values(["slice", "order"], kind="stable")
    return {Slice(str(row.slice), str(row.bucket), str(row.metric)): _interval(row) for row in table.itertuples()}


def _interval(row: Any) -> Interval:
    low, high = (None if pd.isna(bound) else float(bound) for bound in (row.low, row.high))
    return Interval(float(row.point), low, high, int(row.n), "documents", note=str(row.note))
