"""Which latents the report shows, and what it says of each: drawn at random first, the best beside them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from saeops.report.contents import Contents
from saeops.report.tokens import Piece, shade, visible
from saeops.stats import Interval

Texts = Callable[[Sequence[int]], list[str]]
"""Token ids to the text of each."""

TOP_SHOWN = 3
QUANTILE_SHOWN = 2
LOGITS_SHOWN = 6


@dataclass(frozen=True)
class Coverage:
    """How much of the dictionary is alive, labelled, tested, trusted and reviewed."""

    latents: int
    living: int
    labelled: int
    scored: int
    trusted: int
    reviewed: int
    benched: int


@dataclass(frozen=True)
class Chosen:
    """The latents on the page, by how they were chosen."""

    random: tuple[int, ...]
    """Drawn from all latents, the dead included."""
    random_labelled: tuple[int, ...]
    """Drawn from the labelled ones."""
    best: tuple[int, ...]
    """Highest confidence first."""
    seed: int


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
class EffectView:
    """One intervention on this latent, beside random directions of equal norm."""

    what: str
    metric: str
    effect: Interval
    control: Interval
    difference: Interval


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
    effects: tuple[EffectView, ...]
    top: tuple[ContextView, ...]
    weaker: tuple[ContextView, ...]


def coverage(contents: Contents, *, min_positives: int, trusted_confidence: float, reviewed: int) -> Coverage:
    """Count, over all latents, how far each step came."""
    best = chosen_labels(contents.labels)
    with_text = best[best["text"].notna()]
    scored = with_text[with_text["n_positive"] >= min_positives]
    return Coverage(
        latents=contents.d_sae,
        living=int((contents.latents["n_active"] > 0).sum()),
        labelled=len(with_text),
        scored=len(scored),
        trusted=int((with_text["confidence"] >= trusted_confidence).sum()),
        reviewed=reviewed,
        benched=int(contents.effects["latent"].nunique()),
    )


def choose(contents: Contents, *, seed: int, random: int = 12, labelled: int = 6, best: int = 18) -> Chosen:
    """Draw the sample before anything is known of its labels, then take the best of the rest."""
    generator = np.random.default_rng(seed)
    drawn = generator.choice(contents.latents.index.to_numpy(), min(random, contents.d_sae), replace=False)
    labels = chosen_labels(contents.labels)
    labels = labels[labels["text"].notna() & ~labels["latent"].isin(drawn)]
    pool = np.sort(labels["latent"].to_numpy())
    also = generator.choice(pool, min(labelled, len(pool)), replace=False)
    ranked = labels[~labels["latent"].isin(also) & (labels["confidence"] > 0)]
    ranked = ranked.sort_values(["confidence", "latent"], ascending=[False, True])
    return Chosen(
        random=tuple(int(latent) for latent in drawn),
        random_labelled=tuple(int(latent) for latent in also),
        best=tuple(int(latent) for latent in ranked["latent"].head(best)),
        seed=seed,
    )


def chosen_labels(labels: pd.DataFrame) -> pd.DataFrame:
    """One row a latent: the label that counts."""
    return labels[labels["chosen"]]


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
    weaker = contexts[(contexts["kind"] == "quantile") & (contexts["rank"] < QUANTILE_SHOWN)]
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
        effects=tuple(
            _effect(record) for record in contents.effects[contents.effects["latent"] == latent].to_dict("records")
        ),
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
        _finite(record[key]) or 0.0,
        _finite(record[f"{key}_low"]),
        _finite(record[f"{key}_high"]),
        int(record[count]),
        "snippets",
    )


def _effect(record: Mapping[Any, Any]) -> EffectView:
    strength = float(record["strength"])
    is_ablation = record["kind"] == "ablate"
    return EffectView(
        what="ablate" if is_ablation else f"steer ×{strength:g}",
        metric=str(record["metric"]).replace("_", " "),
        effect=_bounds(record, ""),
        control=_bounds(record, "control_"),
        difference=_bounds(record, "difference_"),
    )


def _bounds(record: Mapping[Any, Any], prefix: str) -> Interval:
    low, high = _finite(record[f"{prefix}low"]), _finite(record[f"{prefix}high"])
    return Interval(float(record[f"{prefix}point"]), low, high, int(record["n"]), "prompts")


def _context(record: Mapping[Any, Any], strongest: float, texts: Texts) -> ContextView:
    ids = [int(token) for token in record["tokens"]]
    activations = [float(value) for value in record["activations"]]
    peak = int(record["position"]) - int(record["start"])
    pieces = shade(texts(ids), activations, strongest=strongest, peak=peak)
    return ContextView(float(record["activation"]), int(record["quantile"]), pieces)


def _finite(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)
