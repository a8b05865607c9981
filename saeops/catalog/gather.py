"""One streaming pass over a split: counts, top firings and a uniform sample of firings of every latent.

Memory is bounded by latents × what is kept, however many tokens pass.

# F latent, N entry (one latent firing on one token), T token
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from saeops.catalog.layout import Layout
from saeops.catalog.strongest import Entries, Strongest, random_score, rank_in_run
from saeops.sae.codes import Codes

Array = np.ndarray

OVERSAMPLE = 4
"""Firings sampled for each one shown: quantiles are cut from the sample, so it must be finer than they are."""


@dataclass(frozen=True)
class CodedBatch:
    """Codes of tokens, with the layout's row of each; rows ascend within and across batches."""

    row_T: Int[Array, " T"]
    codes: Codes


@dataclass(frozen=True)
class Wanted:
    """What is kept a latent."""

    top: int
    quantiles: int
    a_quantile: int
    context_tokens: int
    """Tokens shown on each side, inside the window."""


@dataclass(frozen=True)
class Gathered:
    """What one pass found."""

    tokens: int
    n_active_F: Int[Array, " F"]
    sum_F: Float[Array, " F"]
    max_F: Float[Array, " F"]
    top: Entries
    """The strongest firings, at most one a window."""
    sample: Entries
    """Firings drawn uniformly, at most one a window."""


def gather(batches: Iterable[CodedBatch], layout: Layout, wanted: Wanted, *, latents: int, seed: int) -> Gathered:
    """Read every batch once."""
    tokens, active, total = 0, np.zeros(latents, dtype=np.int64), np.zeros(latents)
    largest = np.zeros(latents, dtype=np.float32)
    top = Strongest(latents, wanted.top)
    sample = Strongest(latents, wanted.quantiles * wanted.a_quantile * OVERSAMPLE)
    for batch in batches:
        latent, value = batch.codes.latent.cpu().numpy(), batch.codes.value.float().cpu().numpy()
        row = batch.row_T[batch.codes.rows().cpu().numpy()]
        window = layout.window_start(batch.row_T)[batch.codes.rows().cpu().numpy()]
        tokens += len(batch.row_T)
        active += np.bincount(latent, minlength=latents)
        total += np.bincount(latent, weights=value, minlength=latents)
        np.maximum.at(largest, latent, value)
        top.add(Entries(latent, value.astype(np.float64), value, row, window))
        sample.add(Entries(latent, random_score(latent, row, seed=seed), value, row, window))
    return Gathered(tokens, active, total, largest, top.entries(), sample.entries())


@dataclass(frozen=True)
class Sampled:
    """Firings drawn from each activation quantile."""

    entries: Entries
    quantile: Int[Array, " E"]
    """0 the weakest."""
    rank: Int[Array, " E"]


def by_quantile(sample: Entries, wanted: Wanted) -> Sampled:
    """Cut each latent's sample into quantiles of equal count and keep `a_quantile` of each.

    A latent with s sampled firings gives the i-th weakest to quantile
    ⌊i · quantiles / s⌋; within a quantile the random score decides who stays.
    """
    entries = sample[np.lexsort((sample.token, sample.value, sample.latent))]
    sizes = np.bincount(entries.latent, minlength=1)[entries.latent]
    quantile = rank_in_run(entries.latent) * wanted.quantiles // np.maximum(sizes, 1)
    order = np.lexsort((-entries.score, quantile, entries.latent))
    entries, quantile = entries[order], quantile[order]
    rank = rank_in_run(entries.latent, quantile)
    keep = rank < wanted.a_quantile
    return Sampled(entries[keep], quantile[keep], rank[keep])


def favourite_tokens(sample: Entries, layout: Layout) -> dict[int, int]:
    """The token id each latent fires on most among its sampled firings; ties go to the stronger, then lower id."""
    token = layout.token_T[sample.token]
    order = np.lexsort((token, sample.latent))
    latent, token, value = sample.latent[order], token[order], sample.value[order]
    start = np.flatnonzero(rank_in_run(latent, token) == 0)
    if not len(start):
        return {}
    count = np.diff(np.append(start, len(latent)))
    total = np.add.reduceat(value.astype(np.float64), start)
    latent, token = latent[start], token[start]
    best = np.lexsort((token, -total, -count, latent))
    first = best[rank_in_run(latent[best]) == 0]
    return dict(zip(latent[first].tolist(), token[first].tolist(), strict=True))
