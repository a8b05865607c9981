"""The catalog of a split, from an activation set and an SAE.

# F latent, N token listed
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from saeops.activations.reader import ActivationSet
from saeops.activations.split import Split
from saeops.catalog.contexts import contexts
from saeops.catalog.gather import Gathered, Wanted, favourite_tokens, gather
from saeops.catalog.layout import Layout
from saeops.catalog.logits import LogitEffects
from saeops.catalog.neighbours import Neighbours, nearest
from saeops.catalog.windows import CodedBatch
from saeops.sae.canonical import Sae

BATCH_TOKENS = 4096

Texts = Callable[[Sequence[int]], list[str]]
"""Token ids as text."""


@dataclass(frozen=True)
class Catalog:
    """What the latents of an SAE do on one split."""

    gathered: Gathered
    contexts: pd.DataFrame
    neighbours: Neighbours
    layout: Layout


def build_catalog(
    acts: ActivationSet,
    sae: Sae,
    wanted: Wanted,
    *,
    split: Split,
    seed: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Catalog:
    """One pass over one split and no other.

    Args:
        advance: told the tokens done.
    """
    layout = split_layout(acts, split)
    gathered = gather(coded(acts, sae, layout, split, advance), wanted, latents=sae.meta.d_sae, seed=seed)
    return Catalog(gathered, contexts(gathered, layout, wanted), nearest(sae.W_dec), layout)


def split_layout(acts: ActivationSet, split: Split) -> Layout:
    """The layout of a split's documents."""
    table = acts.documents
    chosen = table[table["split"] == split].sort_values("document")
    window_tokens = acts.context_size - (acts.bos is not None)
    return Layout.of(chosen["document"].tolist(), list(chosen["tokens"]), window_tokens=window_tokens)


def coded(
    acts: ActivationSet, sae: Sae, layout: Layout, split: Split, advance: Callable[[int], None]
) -> Iterator[CodedBatch]:
    """The split's codes in order, batch by batch."""
    for batch in acts.batches(sae.meta.site, split, BATCH_TOKENS):
        row_T = layout.rows(batch.document.long().numpy(), batch.position.long().numpy())
        yield CodedBatch(row_T, layout.window_start(row_T), sae.encode(batch.activations))
        advance(len(batch))


def latent_table(catalog: Catalog, effects: Sequence[LogitEffects], texts: Texts) -> pd.DataFrame:
    """LatentTable: every latent, dead ones with zeros.

    Args:
        effects: of all latents in order; none where a latent's direction is not one of the residual stream.
    """
    gathered = catalog.gathered
    n_active = gathered.n_active_F
    favourite = favourite_tokens(gathered.sample.entries(), catalog.layout)
    text = dict(zip(favourite.values(), texts(list(favourite.values())), strict=True))
    columns = {
        "latent": np.arange(len(n_active), dtype=np.int32),
        "density": n_active / max(gathered.tokens, 1),
        "n_active": n_active,
        "max_activation": gathered.max_F,
        "mean_activation": (gathered.sum_F / np.maximum(n_active, 1)).astype(np.float32),
        **_effect_columns(effects, len(n_active), texts),
        "neighbours": catalog.neighbours.latent_FN.tolist(),
        "neighbour_cosines": catalog.neighbours.cosine_FN.tolist(),
        "top_token": [text[favourite[f]] if f in favourite else "" for f in range(len(n_active))],
    }
    return pd.DataFrame(columns)


def _effect_columns(effects: Sequence[LogitEffects], latents: int, texts: Texts) -> dict[str, list[Any]]:
    if not effects:
        names = ("raised_tokens", "raised_logits", "lowered_tokens", "lowered_logits")
        return {name: [[] for _ in range(latents)] for name in names}
    raised = [row for part in effects for row in part.raised_FN.tolist()]
    lowered = [row for part in effects for row in part.lowered_FN.tolist()]
    listed = sorted({token for row in (*raised, *lowered) for token in row})
    text = dict(zip(listed, texts(listed), strict=True))
    return {
        "raised_tokens": [[text[token] for token in row] for row in raised],
        "raised_logits": [row for part in effects for row in part.raised_logit_FN.tolist()],
        "lowered_tokens": [[text[token] for token in row] for row in lowered],
        "lowered_logits": [row for part in effects for row in part.lowered_logit_FN.tolist()],
    }
