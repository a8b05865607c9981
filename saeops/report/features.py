"""What the report says of one latent: its label and the label's test, its contexts, what it does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from saeops.report.contents import Contents
from saeops.report.effects import finite, headline
from saeops.report.tokens import Piece, shade, visible
from saeops.stats import Interval

Texts = Callable[[Sequence[int]], list[str]]
"""Token ids to the text of each."""

TOP_SHOWN = 3
QUANTILE_SHOWN = 2
LOGITS_SHOWN = 6


@dataclass(frozen=True)
class LabelView:
    """One label with what its test showed."""

    text: str | None
    unparsed: str
    """Why there is no text, where there is none."""
    labeller: str
    confidence: float
    scored: bool
    parts: tuple[tuple[str, Interval, str], ...]
    """Name, interval and what it means."""


@dataclass(frozen=True)
class ContextView:
    """One context: where it comes from and its tokens."""

    activation: float
    quantile: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Card:
    """One latent."""

    latent: int
    is_dead: bool
    density: float
    n_active: int
    max_activation: float
    raised: tuple[tuple[str, float], ...]
    lowered: tuple[tuple[str, float], ...]
    label: LabelView | None
    rivals: tuple[LabelView, ...]
    trusted: bool
    """Its label's confidence reaches the policy's threshold."""
    waiting: bool
    """In the review queue, not decided on."""
    effect: str
    """What steering it did, in words; empty where it was not tested."""
    top: tuple[ContextView, ...]
    weaker: tuple[ContextView, ...]


def card(
    contents: Contents,
    latent: int,
    *,
    texts: Texts,
    min_positives: int,
    trusted_confidence: float,
    waiting: bool,
) -> Card:
    """Everything the page says of one latent."""
    row: Mapping[Any, Any] = contents.latents.loc[latent].to_dict()
    labels = contents.labels[contents.labels["latent"] == latent].sort_values("chosen", ascending=False)
    views = [_label(record, min_positives) for record in labels.to_dict("records")]
    best = views[0] if len(views) and bool(labels["chosen"].iloc[0]) else None
    contexts = contents.contexts[contents.contexts["latent"] == latent]
    strongest = float(row["max_activation"])
    top = contexts[contexts["kind"] == "top"].sort_values("rank").head(TOP_SHOWN)
    place = ["document", "position"]
    is_new = ~contexts.set_index(place).index.isin(top.set_index(place).index)
    weaker = contexts[is_new & (contexts["kind"] == "quantile") & (contexts["rank"] < QUANTILE_SHOWN)]
    weaker = weaker.sort_values(["activation", "document", "position"], ascending=[False, True, True])
    return Card(
        latent=latent,
        is_dead=int(row["n_active"]) == 0,
        density=float(row["density"]),
        n_active=int(row["n_active"]),
        max_activation=strongest,
        raised=_logits(row["raised_tokens"], row["raised_logits"]),
        lowered=_logits(row["lowered_tokens"], row["lowered_logits"]),
        label=best,
        rivals=tuple(views[1:] if best else views),
        trusted=best is not None and best.text is not None and best.confidence >= trusted_confidence,
        waiting=waiting,
        effect=headline(contents.effects, latent),
        top=tuple(_context(record, strongest, texts) for record in top.to_dict("records")),
        weaker=tuple(_context(record, strongest, texts) for record in weaker.to_dict("records")),
    )


def _logits(tokens: Sequence[str], logits: Sequence[float]) -> tuple[tuple[str, float], ...]:
    pairs = zip(tokens, logits, strict=True)
    return tuple((visible(token), float(logit)) for token, logit in list(pairs)[:LOGITS_SHOWN])


def _label(record: Mapping[Any, Any], min_positives: int) -> LabelView:
    text = record["text"]
    reason = record["unparsed"]
    return LabelView(
        text=None if pd.isna(text) else str(text),
        unparsed="" if pd.isna(reason) else str(reason),
        labeller=str(record["labeller"]),
        confidence=float(record["confidence"]),
        scored=int(record["n_positive"]) >= min_positives,
        parts=tuple((name, _part(record, key, count), meaning) for name, key, count, meaning in _LABEL_PARTS),
    )


_LABEL_PARTS = (
    ("finds", "tpr", "n_positive", "true positives: share of firing snippets it recognises (TPR)"),
    ("rejects", "tnr", "n_negative", "true negatives: share of random silent snippets it rejects (TNR)"),
    ("fooled", "fp_hard", "n_hard", "false positives on silent snippets that look alike"),
    ("precision", "precision", "n_positive", "precision at the latent's natural base rate"),
)


def _part(record: Mapping[Any, Any], key: str, count: str) -> Interval:
    return Interval(
        finite(record[key]) or 0.0,
        finite(record[f"{key}_low"]),
        finite(record[f"{key}_high"]),
        int(record[count]),
        "snippets",
    )


def _context(record: Mapping[Any, Any], strongest: float, texts: Texts) -> ContextView:
    ids = [int(token) for token in record["tokens"]]
    activations = [float(value) for value in record["activations"]]
    peak = int(record["position"]) - int(record["start"])
    pieces = shade(texts(ids), activations, strongest=strongest, peak=peak)
    return ContextView(float(record["activation"]), int(record["quantile"]), pieces)
