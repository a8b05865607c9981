"""Which of the catalog's contexts the page shows: as many of every latent as a page can hold.

# F latent, N context
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

MOST_CONTEXTS = 10
"""Contexts of a latent that a reader looks at."""
LEAST_CONTEXTS = 2
MOST_TOKENS = 4_000_000
"""Tokens of all contexts together; about two bytes each in the page."""


@dataclass(frozen=True)
class Excerpts:
    """The contexts shown."""

    contexts: pd.DataFrame
    """Ordered by latent; the strongest first, then down the quantiles."""
    of_all: int
    """How many contexts the catalog holds."""
    a_latent: int
    """The most that one latent shows."""


def excerpts(contexts: pd.DataFrame, *, most_tokens: int = MOST_TOKENS) -> Excerpts:
    """Strongest contexts and samples of every quantile in turn, the same number for every latent.

    Args:
        contexts: the catalog's ContextTable.
    """
    place = ["latent", "document", "position"]
    # The quantile sample may draw a context that is among the strongest; `top` rows come first.
    kept = contexts.sort_values(["latent", "kind"], ascending=[True, False], kind="stable").drop_duplicates(place)
    tokens = int(kept["tokens"].map(len).sum())
    living = max(kept["latent"].nunique(), 1)
    mean = tokens / max(len(kept), 1)
    a_latent = int(np.clip(most_tokens / (living * max(mean, 1.0)), LEAST_CONTEXTS, MOST_CONTEXTS))
    is_top = kept["kind"] == "top"
    # Top contexts and quantile samples take turns: 0, 2, 4, … and 1, 3, 5, …
    turn = kept.assign(is_top=is_top).sort_values(["rank", "quantile"], ascending=[True, False], kind="stable")
    turn = turn.assign(turn=2 * turn.groupby(["latent", "is_top"]).cumcount() + ~turn["is_top"])
    shown = turn.sort_values(["latent", "turn"], kind="stable").groupby("latent").head(a_latent)
    order = ["latent", "is_top", "activation", "document", "position"]
    shown = shown.sort_values(order, ascending=[True, False, False, True, True], kind="stable")
    return Excerpts(shown.drop(columns=["is_top", "turn"]).reset_index(drop=True), len(contexts), a_latent)
