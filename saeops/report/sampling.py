"""The order in which the report shows latents, drawn at random; and how much of them nobody looked at."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Int

from saeops.report.contents import Contents

Array = np.ndarray


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


def drawn_order(contents: Contents, *, seed: int) -> Int[Array, " F"]:
    """Every latent, the dead and the unlabelled included, in an order that depends on the seed alone."""
    return np.random.default_rng(seed).permutation(contents.latents.index.to_numpy())


def chosen_labels(labels: pd.DataFrame) -> pd.DataFrame:
    """One row a latent: the label that counts."""
    return labels[labels["chosen"]]
