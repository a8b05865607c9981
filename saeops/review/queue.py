"""The review queue: which labels of a bundle people should look at first, and why.

    priority    = impact × uncertainty
    impact      = mass share × effect ratio
    mass        = density × mean activation        the norm a latent adds to an average token
    mass share  = mass / Σ mass over labelled latents
    effect ratio = measured steering effect beyond random / median of the measured ones, kept within [1/4, 4];
                   1 where nothing was measured
    uncertainty = w / (w + |confidence − trusted|)
    w           = (width of TPR's interval + width of TNR's interval) / 2

A label is worth a look when its latent carries much, and when its evidence is
thin or so close to the trusted threshold that a person could tip it.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from saeops.review.config import ReviewConfig

if TYPE_CHECKING:
    import pandas as pd

Why = Literal["dropped", "priority", "random"]

EFFECT_RATIO_LIMIT = 4.0
"""One noisy effect moves a label's impact by at most this factor, either way."""


@dataclass(frozen=True)
class QueueItem:
    """One label to look at."""

    latent: int
    label_version: str
    why: Why
    """`dropped`: instead of an older dictionary's label; `priority`: among the highest; `random`: of the rest."""
    priority: float
    impact: float
    uncertainty: float


def review_queue(
    labels: "pd.DataFrame",
    latents: "pd.DataFrame",
    effects: dict[int, float],
    *,
    config: ReviewConfig,
    trusted: float,
    digest: str,
    dropped: Collection[int] = (),
) -> tuple[QueueItem, ...]:
    """Labels in the place of dropped ones, others by falling priority, a random sample of the rest by latent.

    Args:
        labels: a bundle's labels.parquet; only chosen labels that have a text are queued.
        latents: its catalog's latents.parquet.
        effects: latent → measured effect in nats (see `measured_effects`).
        trusted: confidence from which a feature is trusted.
        digest: the bundle's digest: the same bundle always gets the same queue.
        dropped: latents whose label of an older dictionary was not carried over.
    """
    ranked = _ranked(labels, latents, effects, trusted=trusted)
    instead = [item for item in ranked if item.latent in set(dropped)][: config.by_dropped]
    ranked = [item for item in ranked if item not in instead]
    first, rest = ranked[: config.by_priority], ranked[config.by_priority :]
    generator = np.random.default_rng(int(digest[:16], 16))
    drawn = generator.permutation(len(rest))[: config.at_random]
    sample = sorted((rest[i] for i in drawn), key=lambda item: item.latent)
    return (*_with_reason(instead, "dropped"), *_with_reason(first, "priority"), *_with_reason(sample, "random"))


def measured_effects(effects: "pd.DataFrame") -> dict[int, float]:
    """latent → how far steering moved its own tokens beyond random directions, in nats, mean over strengths."""
    rows = effects[(effects["kind"] == "steer") & (effects["metric"] == "target_logprob")]
    means = rows.groupby("latent")["difference_point"].mean()
    return dict(zip(means.index.astype(int).tolist(), means.astype(float).tolist(), strict=True))


def _ranked(
    labels: "pd.DataFrame", latents: "pd.DataFrame", effects: dict[int, float], *, trusted: float
) -> list[QueueItem]:
    chosen = labels[labels["chosen"] & labels["text"].notna()].merge(
        latents[["latent", "density", "mean_activation"]], on="latent", how="inner"
    )
    mass = (chosen["density"] * chosen["mean_activation"]).to_numpy(dtype=np.float64)
    share = mass / mass.sum() if mass.sum() > 0 else mass
    impact = share * _effect_ratios(chosen["latent"], effects)
    width = (chosen["tpr_high"] - chosen["tpr_low"] + chosen["tnr_high"] - chosen["tnr_low"]).to_numpy() / 2
    distance = np.abs(chosen["confidence"].to_numpy() - trusted)
    # A label of no width on the threshold itself is 0/0; it is as uncertain as any label there.
    uncertainty = np.where(width + distance > 0, width / np.maximum(width + distance, 1e-12), 1.0)
    items = [
        QueueItem(int(latent), str(version), "priority", float(i * u), float(i), float(u))
        for latent, version, i, u in zip(chosen["latent"], chosen["version"], impact, uncertainty, strict=True)
    ]
    return sorted(items, key=lambda item: (-item.priority, item.latent))


def _effect_ratios(latents: Iterable[int], effects: dict[int, float]) -> np.ndarray:
    latents = list(latents)
    typical = float(np.median(list(effects.values()))) if effects else 0.0
    if typical <= 0:
        return np.ones(len(latents))
    ratios = np.array([effects.get(int(latent), typical) / typical for latent in latents])
    return np.clip(ratios, 1 / EFFECT_RATIO_LIMIT, EFFECT_RATIO_LIMIT)


def _with_reason(items: Iterable[QueueItem], why: Why) -> list[QueueItem]:
    return [QueueItem(i.latent, i.label_version, why, i.priority, i.impact, i.uncertainty) for i in items]
