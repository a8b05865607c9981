"""Contexts: the tokens round a firing, with the latent's activation on each of them.

# C context, N entry of a batch, S shown token (all contexts one after another)
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from saeops.catalog.gather import CodedBatch, Gathered, Wanted, by_quantile
from saeops.catalog.layout import Layout
from saeops.catalog.strongest import Entries, rank_in_run

Array = np.ndarray


def contexts(gathered: Gathered, batches: Iterable[CodedBatch], layout: Layout, wanted: Wanted) -> pd.DataFrame:
    """ContextTable of all latents.

    Args:
        batches: the same tokens that were gathered, once more.
    """
    top, sampled = gathered.top, by_quantile(gathered.sample, wanted)
    entries = Entries.joined(top, sampled.entries)
    row = entries.token
    start = np.maximum(layout.window_start(row), row - wanted.context_tokens)
    end = np.minimum(layout.window_end(row), row + wanted.context_tokens + 1)
    activations = shown_activations(entries.latent, start, end, batches)
    document_start = layout.document_start(row)
    frame = pd.DataFrame(
        {
            "latent": entries.latent.astype(np.int32),
            "kind": np.repeat(["top", "quantile"], [len(top.latent), len(sampled.rank)]),
            "quantile": np.append(np.full(len(top.latent), -1), sampled.quantile).astype(np.int8),
            "rank": np.append(rank_in_run(top.latent), sampled.rank).astype(np.int16),
            "document": layout.document_of(row).astype(np.int32),
            "position": (row - document_start).astype(np.int32),
            "activation": entries.value.astype(np.float32),
            "start": (start - document_start).astype(np.int32),
            "tokens": [layout.token_T[a:b] for a, b in zip(start.tolist(), end.tolist(), strict=True)],
            "activations": np.split(activations, np.cumsum(end - start)[:-1]) if len(row) else [],
        }
    )
    # "top" before "quantile", as a reader wants them.
    order = np.lexsort((frame["rank"], -frame["quantile"], frame["kind"] != "top", frame["latent"]))
    return frame.iloc[order].reset_index(drop=True)


def shown_activations(
    latent: Int[Array, " C"], start: Int[Array, " C"], end: Int[Array, " C"], batches: Iterable[CodedBatch]
) -> Float[Array, " S"]:
    """What each context's latent does on rows start to end, by one more pass over the codes.

    Each batch serves only the contexts it touches, so what is held beside the
    result is bounded by a batch.
    """
    lengths = end - start
    offset = np.cumsum(lengths) - lengths
    shown = np.zeros(int(lengths.sum()), dtype=np.float32)
    order = np.argsort(start, kind="stable")
    sorted_start, longest = start[order], int(lengths.max(initial=0))
    for batch in batches:
        if not len(batch.row_T) or not len(batch.codes.latent):
            continue
        low, high = batch.row_T[0], batch.row_T[-1] + 1
        first, last = np.searchsorted(sorted_start, [low - longest, high])
        touched = order[first:last]
        which = np.repeat(touched, lengths[touched])
        inside = rank_in_run(which)
        key = (start[which] + inside) * batch.codes.n_latents + latent[which]
        # Rows ascend and so do the latents on each: the keys of a batch come sorted.
        fired = batch.row_T[batch.codes.rows().cpu().numpy()] * batch.codes.n_latents
        fired = fired + batch.codes.latent.cpu().numpy()
        place = np.minimum(np.searchsorted(fired, key), len(fired) - 1)
        hit = fired[place] == key
        shown[(offset[which] + inside)[hit]] = batch.codes.value.float().cpu().numpy()[place[hit]]
    return shown
