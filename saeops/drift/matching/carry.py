"""Label carry-over: which labels of an old dictionary move to the matched latents of a new one.

    probability = 1 − high(null share)        of the match: the Wilson bound of how often chance scores as much
    confidence  = probability · rescored      rescored: the label's own test on the new dictionary's score split

`rescored` is a lower bound of Youden's J (labelling/scoring.py), and a probability makes it no larger: a carried
confidence promises no more than a fresh one. A label that no match leads anywhere, that a reviewer rejected, whose
carried confidence is below `carry.least_confidence`, or that lost more than `carry.most_loss`, is dropped. What
reviewers said goes along as remarks: evidence for the next reviewer, no decision on the new dictionary.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from saeops.drift.matching.config import CarryConfig
from saeops.labelling.labels import Label
from saeops.review.ledger import Verdict

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Origin:
    """A dictionary in which a label stood, and the match that took it on from there."""

    bundle: str
    """Digest."""
    latent: int
    confidence: float
    score: float
    """Of the match with the latent it went to."""
    probability: float
    """1 − high(null share) of that match."""


@dataclass(frozen=True)
class Remark:
    """What a reviewer said of the label, on which dictionary."""

    bundle: str
    latent: int
    verdict: Verdict
    text: str | None
    reason: str
    reviewer: str
    at: str


@dataclass(frozen=True)
class OldLabel:
    """A chosen label of the old dictionary."""

    latent: int
    label: Label
    confidence: float
    rejected: bool
    """By the decision in force on it."""
    history: tuple[Origin, ...] = ()
    """Where it stood before, oldest first."""
    remarks: tuple[Remark, ...] = ()
    """Oldest first."""


@dataclass(frozen=True)
class Offer:
    """A label and the latent of the new dictionary that may take it."""

    old: OldLabel
    latent: int
    origin: Origin


@dataclass(frozen=True)
class Carried:
    """A label that stands in the new dictionary."""

    offer: Offer
    rescored: float
    confidence: float


@dataclass(frozen=True)
class Dropped:
    """A label that does not, and why."""

    old: OldLabel
    reason: str
    offer: Offer | None = None
    """Where it would have gone; None: nowhere."""
    rescored: float | None = None
    confidence: float | None = None


Settled = Carried | Dropped


def offers(
    labels: Iterable[OldLabel], matches: "pd.DataFrame", *, bundle: str
) -> tuple[tuple[Offer, ...], tuple[Dropped, ...]]:
    """Labels whose latent was matched, and those that have nowhere to go.

    Args:
        matches: MatchTable with the old dictionary as A.
        bundle: digest of the old dictionary.
    """
    rows = {int(row["latent"]): row for row in matches[matches["side"] == "A"].to_dict("records")}
    found: list[Offer] = []
    dropped: list[Dropped] = []
    for old in labels:
        row = rows.get(old.latent)
        why = _nowhere(old, row)
        if row is None or why:
            dropped.append(Dropped(old, why))
            continue
        origin = Origin(bundle, old.latent, old.confidence, float(row["score"]), 1 - float(row["null_high"]))
        found.append(Offer(old, int(row["partner"]), origin))
    return tuple(found), tuple(dropped)


def _nowhere(old: OldLabel, row: Mapping[Any, Any] | None) -> str:
    """Why a label cannot move; empty where it can."""
    if old.rejected:
        return "a reviewer rejected it"
    if row is None:
        return "its latent is dead"
    if row["kind"] == "matched":
        return ""
    if row["kind"] == "split":
        return f"its latent was split into {', '.join(str(part) for part in row['parts'])}"
    if row["kind"] == "merged":
        return f"its latent was merged into {int(row['whole'])}"
    return f"its latent vanished; the nearest is {int(row['nearest'])} ({row['nearest_score']:.2f})"


def settle(offer: Offer, rescored: float | None, config: CarryConfig) -> Settled:
    """Whether a label stands, by policy.

    Args:
        rescored: confidence of its test on the new dictionary; None: it could not be tested.
    """
    if rescored is None:
        return Dropped(offer.old, "it could not be tested: too few firings, or no judge", offer)
    confidence = offer.origin.probability * rescored
    if confidence < config.least_confidence:
        reason = f"carried confidence {confidence:.2f} is below {config.least_confidence:g}"
        return Dropped(offer.old, reason, offer, rescored, confidence)
    if offer.old.confidence - confidence > config.most_loss:
        reason = f"confidence fell from {offer.old.confidence:.2f} to {confidence:.2f}"
        return Dropped(offer.old, reason, offer, rescored, confidence)
    return Carried(offer, rescored, confidence)


def carried_row(settled: Settled, *, bundle: str, trusted: float) -> dict[str, Any]:
    """One row of CarriedTable."""
    stands = isinstance(settled, Carried)
    offer = settled.offer
    old = offer.old if offer is not None else settled.old  # type: ignore[union-attr]
    history = [*old.history, *([offer.origin] if offer is not None else [])]
    return {
        "from_bundle": bundle,
        "from_latent": old.latent,
        "labeller": old.label.labeller,
        "version": old.label.version,
        "text": old.label.text,
        "old_confidence": old.confidence,
        "trusted": old.confidence >= trusted and not old.rejected,
        "outcome": "carried" if stands else "dropped",
        "reason": None if isinstance(settled, Carried) else settled.reason,
        "latent": None if offer is None else offer.latent,
        "match_score": None if offer is None else offer.origin.score,
        "match_probability": None if offer is None else offer.origin.probability,
        "rescored": settled.rescored,
        "confidence": settled.confidence,
        "history": [asdict(origin) for origin in history],
        "remarks": [asdict(remark) for remark in old.remarks],
    }
