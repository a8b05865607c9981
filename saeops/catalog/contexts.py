"""Contexts: the tokens round a firing, with the latent's activation on each of them.

# E context, W token shown at most
"""

import numpy as np
import pandas as pd

from saeops.catalog.gather import Gathered, Wanted, by_quantile
from saeops.catalog.layout import Layout
from saeops.catalog.strongest import rank_in_run

Array = np.ndarray


def contexts(gathered: Gathered, layout: Layout, wanted: Wanted) -> pd.DataFrame:
    """ContextTable of all latents."""
    top, sampled = gathered.top.entries(), by_quantile(gathered.sample.entries(), wanted)
    latent = np.concatenate([top.latent, sampled.entries.latent])
    quantile = np.append(np.full(len(top.latent), -1), sampled.quantile)
    rank = np.append(rank_in_run(top.latent), sampled.rank)
    shown_EW = np.concatenate([gathered.top.shown(top), gathered.sample.shown(sampled.entries)])
    # "top" (which has no quantile) before the others, the strongest quantile first, as a reader wants them.
    order = np.lexsort((rank, np.where(quantile < 0, -wanted.quantiles, -quantile), latent))
    row = np.append(top.row, sampled.entries.row)[order]
    start = np.maximum(layout.window_start(row), row - wanted.context_tokens)
    end = np.minimum(layout.window_end(row), row + wanted.context_tokens + 1)
    document_start = layout.document_start(row)
    offset = start - row + wanted.context_tokens
    return pd.DataFrame(
        {
            "latent": latent[order].astype(np.int32),
            "kind": np.where(quantile[order] < 0, "top", "quantile"),
            "quantile": quantile[order].astype(np.int8),
            "rank": rank[order].astype(np.int16),
            "document": layout.document_of(row).astype(np.int32),
            "position": (row - document_start).astype(np.int32),
            "activation": shown_EW[order, wanted.context_tokens],
            "start": (start - document_start).astype(np.int32),
            "tokens": [layout.token_T[a:b] for a, b in zip(start.tolist(), end.tolist(), strict=True)],
            "activations": _cut(shown_EW, order, offset, end - start),
        }
    )


def _cut(shown_EW: Array, order: Array, offset: Array, length: Array) -> list[Array]:
    """Of each row the part that is shown."""
    cuts = zip(order.tolist(), offset.tolist(), (offset + length).tolist(), strict=True)
    return [shown_EW[row, a:b] for row, a, b in cuts]
