"""What the decisions on one bundle add up to."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from saeops.review.ledger import Decision, LedgerEntry
from saeops.review.metrics import acceptance
from saeops.review.queue import QueueItem
from saeops.stats import Interval

if TYPE_CHECKING:
    import pandas as pd

LabelKey = tuple[int, str]
"""A label: latent and label version."""


@dataclass(frozen=True)
class ReviewOutcome:
    """How far the review of a bundle is, and what it says."""

    queued: int
    decided: int
    pending: tuple[int, ...]
    """Latents still to be decided on, in the queue's order."""
    accepted: int
    edited: int
    rejected: int
    acceptance: Interval
    """Share of the random sample's decided labels that were accepted or edited (Wilson)."""

    @property
    def complete(self) -> bool:
        """Every queued label was decided on."""
        return not self.pending

    def to_json(self) -> dict[str, Any]:
        return {**self.__dict__, "pending": list(self.pending), "acceptance": self.acceptance.to_json()}


def decisions_on(entries: Iterable[LedgerEntry], bundle: str) -> dict[LabelKey, Decision]:
    """The decision in force on each label of a bundle: the last one on that label's version.

    Decisions on another bundle's digest count for nothing here.
    """
    decisions = (entry.decision for entry in entries)
    return {(d.latent, d.label_version): d for d in decisions if d.bundle == bundle}


def review_outcome(queue: Sequence[QueueItem], entries: Iterable[LedgerEntry], *, bundle: str) -> ReviewOutcome:
    """Count the decisions in force on the queue's labels.

    The acceptance is taken over the random sample alone: labels queued for
    their uncertainty are no fair picture of the rest.
    """
    decisions = decisions_on(entries, bundle)
    decided = {item: decisions[key] for item in queue if (key := (item.latent, item.label_version)) in decisions}
    verdicts = [decision.verdict for decision in decided.values()]
    sample = [decision.verdict for item, decision in decided.items() if item.why == "random"]
    return ReviewOutcome(
        queued=len(queue),
        decided=len(decided),
        pending=tuple(item.latent for item in queue if item not in decided),
        accepted=verdicts.count("accept"),
        edited=verdicts.count("edit"),
        rejected=verdicts.count("reject"),
        acceptance=acceptance(sample),
    )


def apply_decisions(labels: "pd.DataFrame", entries: Iterable[LedgerEntry], *, bundle: str) -> "pd.DataFrame":
    """The labels as reviewed: rejected ones are gone, edited ones carry the reviewer's text.

    Args:
        labels: a bundle's labels.parquet; its other columns are kept as they are.
    """
    decisions = decisions_on(entries, bundle)
    keys = list(zip(labels["latent"].astype(int), labels["version"], strict=True))
    kept = labels[[_verdict(decisions, key) != "reject" for key in keys]].copy()
    kept["text"] = [
        decision.text
        if (decision := decisions.get((int(latent), version))) and decision.verdict == "edit"
        else text
        for latent, version, text in zip(kept["latent"], kept["version"], kept["text"], strict=True)
    ]
    return kept.reset_index(drop=True)


def _verdict(decisions: Mapping[LabelKey, Decision], key: LabelKey) -> str:
    decision = decisions.get(key)
    return decision.verdict if decision else ""
