"""Review of a bundle's labels: what to look at, what was said, what it adds up to."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from saeops.dictionary.bundle import Bundle, open_bundle
from saeops.errors import ReviewInvalid
from saeops.ports import ReviewLedger
from saeops.promotion.evidence import queue_of
from saeops.review.ledger import VERDICTS, Decision, LedgerEntry
from saeops.review.outcome import ReviewOutcome, decisions_on, review_outcome
from saeops.review.queue import QueueItem, Why, measured_effects

Texts = Callable[[Sequence[int]], Sequence[str]]
"""Each token id as the text it stands for."""

CONTEXTS_SHOWN = 4


@dataclass(frozen=True)
class ShownContext:
    """A piece of text on which the latent fires."""

    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    """The latent's activation on each token; 0 where it is silent."""


@dataclass(frozen=True)
class ReviewRow:
    """One label in the queue, with what a reviewer needs to judge it."""

    latent: int
    label_version: str
    label: str
    labeller: str
    confidence: float
    tpr: tuple[float, float]
    """Bounds of the share of firing snippets that the label finds."""
    tnr: tuple[float, float]
    """Bounds of the share of random silent snippets that it turns down."""
    effect_nats: float | None
    """Steering effect on its own tokens beyond random directions; None where not measured."""
    why: Why
    priority: float
    contexts: tuple[ShownContext, ...]
    """Half the strongest, half from the lower activation quantiles."""
    decided: Decision | None
    before: tuple[str, ...] = ()
    """What reviewers said on earlier dictionaries of the label it was carried from, or instead of: evidence."""


@dataclass(frozen=True)
class Review:
    """The review of one bundle as it stands."""

    bundle: str
    rows: tuple[ReviewRow, ...]
    outcome: ReviewOutcome


def queue(bundle: Path, ledger: ReviewLedger, *, texts: Texts | None = None) -> Review:
    """What to look at in a finished bundle, what was decided on it, and what that adds up to.

    Args:
        texts: turns token ids into text; without it contexts show ids as `#<id>`.

    Raises:
        StageMissing: there is no finished bundle.
        FolderDamaged: a byte of the bundle changed.
        LedgerTampered, StoreUnreachable: the ledger cannot be trusted, or does not answer.
    """
    opened = open_bundle(bundle)
    items, entries = queue_of(opened), ledger.entries()
    effects = measured_effects(opened.effects())
    decisions = decisions_on(entries, opened.candidate)
    labels = {(int(r["latent"]), str(r["version"])): r for r in opened.labels().to_dict("records")}
    contexts = _contexts(bundle, [item.latent for item in items], texts or _numbers)
    before = _said_before(opened)
    rows = tuple(
        replace(
            _row(item, labels[key], effects.get(item.latent), contexts[item.latent], decisions.get(key)),
            before=before.get(item.latent, ()),
        )
        for item in items
        if (key := (item.latent, item.label_version))
    )
    return Review(opened.candidate, rows, review_outcome(items, entries, bundle=opened.candidate))


def _said_before(bundle: Bundle) -> dict[int, tuple[str, ...]]:
    """Latent → a line on its label in the older dictionary, then one each that reviewers said of it."""
    table = bundle.carried()
    if table is None:
        return {}
    found = {}
    for row in table[table["latent"].notna()].to_dict("records"):
        fate = "carried over" if row["outcome"] == "carried" else f"dropped: {row['reason']}"
        origin = f"latent {row['from_latent']} of {row['from_bundle'][:12]}"
        said = [f"{origin}: {row['text']} ({row['old_confidence']:.2f}), {fate}"]
        for remark in json.loads(row["remarks"]):
            better = f" to {remark['text']}" if remark["text"] else ""
            said.append(f"{remark['reviewer']} said {remark['verdict']}{better} on {remark['bundle'][:12]}")
        found[int(row["latent"])] = tuple(said)
    return found


def outcome(bundle: Path, ledger: ReviewLedger) -> ReviewOutcome:
    """How far the review of a finished bundle is, and what it says; raises as `queue` does."""
    opened = open_bundle(bundle)
    return review_outcome(queue_of(opened), ledger.entries(), bundle=opened.candidate)


def decide(
    bundle: Path,
    ledger: ReviewLedger,
    *,
    latent: int,
    verdict: str,
    reviewer: str,
    now: datetime,
    reason: str = "",
    text: str | None = None,
    label_version: str | None = None,
) -> LedgerEntry:
    """Record one decision, bound to the bundle's digest and the label's version.

    Args:
        text: the better label, for an edit.
        label_version: the version the reviewer saw; None takes the queued one.

    Raises:
        ReviewInvalid: every fault at once; nothing is recorded.
        StageMissing, FolderDamaged, LedgerTampered, StoreUnreachable: as in `queue`.
    """
    opened = open_bundle(bundle)
    items = queue_of(opened)
    item = next((item for item in items if item.latent == latent), None)
    faults = [
        *_queue_faults(item, label_version, items),
        *_verdict_faults(verdict, text, reason, reviewer),
    ]
    if faults or item is None:
        raise ReviewInvalid(
            f"no decision recorded on latent {latent}: {'; '.join(faults)}",
            hint="see `saeops review queue`; then saeops review decide LATENT accept|edit|reject",
        )
    decision = Decision(
        bundle=opened.candidate,
        latent=latent,
        label_version=item.label_version,
        verdict=verdict,  # type: ignore[arg-type]  # one of VERDICTS: checked above
        text=text.strip() if text else None,
        reason=reason.strip(),
        reviewer=reviewer.strip(),
        at=now.astimezone(UTC).isoformat(timespec="seconds"),
    )
    return ledger.append(decision)


def _queue_faults(item: QueueItem | None, version: str | None, items: Sequence[QueueItem]) -> list[str]:
    if item is None:
        some = ", ".join(str(i.latent) for i in items[:5]) or "nothing"
        return [f"it is not in this bundle's queue (which holds {some}, …)"]
    if version is not None and version != item.label_version:
        return [f"its label is version {item.label_version} now, not {version}: look again"]
    return []


def _verdict_faults(verdict: str, text: str | None, reason: str, reviewer: str) -> list[str]:
    faults = []
    if verdict not in VERDICTS:
        faults.append(f"{verdict!r} is not one of {', '.join(VERDICTS)}")
    if verdict == "edit" and not (text and text.strip()):
        faults.append("an edit needs the better text")
    if verdict != "edit" and text is not None:
        faults.append(f"a text belongs to an edit, not to {verdict!r}")
    if verdict == "reject" and not reason.strip():
        faults.append("a reject needs a reason")
    if not reviewer.strip():
        faults.append("a decision needs a reviewer's name")
    return faults


def _row(
    item: QueueItem,
    label: Mapping[Any, Any],
    effect_nats: float | None,
    contexts: tuple[ShownContext, ...],
    decided: Decision | None,
) -> ReviewRow:
    return ReviewRow(
        latent=item.latent,
        label_version=item.label_version,
        label=str(label["text"]),
        labeller=str(label["labeller"]),
        confidence=float(label["confidence"]),
        tpr=(float(label["tpr_low"]), float(label["tpr_high"])),
        tnr=(float(label["tnr_low"]), float(label["tnr_high"])),
        effect_nats=effect_nats,
        why=item.why,
        priority=item.priority,
        contexts=contexts,
        decided=decided,
    )


def _contexts(bundle: Path, latents: Sequence[int], texts: Texts) -> dict[int, tuple[ShownContext, ...]]:
    frame = pd.read_parquet(bundle / "catalog" / "contexts.parquet")
    shown = {}
    for latent in latents:
        group = frame[frame["latent"] == latent]
        top = group[group["kind"] == "top"].sort_values("rank").head(CONTEXTS_SHOWN // 2)
        lower = group[group["kind"] == "quantile"].sort_values(["quantile", "rank"]).head(CONTEXTS_SHOWN // 2)
        shown[latent] = tuple(
            ShownContext(
                tuple(texts([int(i) for i in row["tokens"]])), tuple(float(a) for a in row["activations"])
            )
            for row in [*top.to_dict("records"), *lower.to_dict("records")]
        )
    return shown


def _numbers(ids: Sequence[int]) -> list[str]:
    return [f"#{i}" for i in ids]
