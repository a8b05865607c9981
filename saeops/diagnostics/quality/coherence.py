"""Activation coherence: how much alike the contexts are in which a latent fires.

A context is a bag of its tokens, each with the weight idf × exp(−distance to the firing / `REACH`).
Two contexts of different documents are compared by cosine; what any two contexts of the set have in
common is taken off, so that contexts dealt out at random score 0. The bag knows nothing of the model:
one ruler measures the SAEs of trained and of random models.

# C context, S shown token (all contexts one after another), V vocabulary, U pair of latent and document, F latent
"""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy import sparse

Array = np.ndarray

REACH = 4.0
"""Tokens after which a context's token weighs 1/e."""
MIN_DOCUMENTS = 4
"""Fewer documents than this say nothing of a latent."""


@dataclass(frozen=True)
class Bags:
    """Contexts as sparse vectors of unit length, with the latent that each is of and its document."""

    latent_C: Int[Array, " C"]
    document_C: Int[Array, " C"]
    unit_CV: Any
    """scipy CSR matrix."""

    @classmethod
    def of(cls, contexts: pd.DataFrame) -> Self:
        """From the quantile samples of a ContextTable: the whole range of activations, not its top alone."""
        chosen = contexts[contexts["kind"] == "quantile"]
        return cls(chosen["latent"].to_numpy(), chosen["document"].to_numpy(), _unit_rows(_weighed(chosen)))

    def shuffled(self, seed: int) -> Self:
        """The same contexts dealt out to the same latents at random, as many to each: the null."""
        return replace(self, latent_C=np.random.default_rng(seed).permutation(self.latent_C))


def coherence(bags: Bags, latents: int) -> Float[Array, " F"]:
    """Mean cosine over pairs of a latent's contexts from different documents, minus that over all such pairs.

    NaN for a latent with contexts from fewer than `MIN_DOCUMENTS` documents.
    """
    if not len(bags.latent_C):
        return np.full(latents, np.nan)
    own_F = _across_documents(bags, latents)
    everything = _across_documents(replace(bags, latent_C=np.zeros_like(bags.latent_C)), 1)
    return own_F - everything[0]


def _across_documents(bags: Bags, latents: int) -> Float[Array, " F"]:
    """Mean cosine a latent, from sums: ‖Σ u‖² holds all pairs, ‖Σ u‖² within a document those to leave out."""
    pairs, pair_C = np.unique(np.stack([bags.latent_C, bags.document_C]), axis=1, return_inverse=True)
    latent_U, size_U = pairs[0], np.bincount(pair_C)
    sum_UV = _adder(pair_C, len(size_U)) @ bags.unit_CV
    add_FU = _adder(latent_U, latents)
    cosines_F = _squares(add_FU @ sum_UV) - add_FU @ _squares(sum_UV)
    pairs_F = (add_FU @ size_U) ** 2 - add_FU @ size_U**2
    documents_F = np.bincount(latent_U, minlength=latents)
    enough_F = documents_F >= MIN_DOCUMENTS
    return np.where(enough_F, cosines_F / np.maximum(pairs_F, 1), np.nan)


def _weighed(contexts: pd.DataFrame) -> Any:
    """Context × vocabulary: Σ over a token's places of exp(−distance / REACH), times its idf."""
    lengths_C = contexts["tokens"].map(len).to_numpy(dtype=np.int64)
    token_S = np.concatenate([np.zeros(0, dtype=np.int64), *contexts["tokens"]]).astype(np.int64)
    context_S = np.repeat(np.arange(len(contexts)), lengths_C)
    place_S = np.arange(len(token_S)) - np.repeat(np.cumsum(lengths_C) - lengths_C, lengths_C)
    firing_C = (contexts["position"] - contexts["start"]).to_numpy()
    near_S = np.exp(-np.abs(place_S - firing_C[context_S]) / REACH)
    shape = (len(contexts), int(token_S.max(initial=0)) + 1)
    near_CV = sparse.csr_matrix((near_S, (context_S, token_S)), shape=shape)
    return near_CV @ sparse.diags(_idf(near_CV))


def _idf(near_CV: Any) -> Float[Array, " V"]:
    """log((1 + C) / (1 + contexts that hold the token)): 0 for one that all hold (Spärck Jones 1972, smoothed)."""
    held_V = np.bincount(near_CV.indices, minlength=near_CV.shape[1])
    return np.asarray(np.log((1 + near_CV.shape[0]) / (1 + held_V)))


def _unit_rows(rows: Any) -> Any:
    norms = np.sqrt(_squares(rows))
    return (sparse.diags(1 / np.where(norms > 0, norms, 1)) @ rows).tocsr()


def _adder(group: Int[Array, " C"], groups: int) -> Any:
    """The matrix that sums rows by group."""
    return sparse.csr_matrix((np.ones(len(group)), (group, np.arange(len(group)))), shape=(groups, len(group)))


def _squares(rows: Any) -> Float[Array, " row"]:
    return np.asarray(rows.multiply(rows).sum(axis=1)).ravel()
