"""Which latents the report shows: drawn at random first, the best beside them. And how much nobody looked at."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from saeops.report.contents import Contents


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
