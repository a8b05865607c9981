"""Sparsity: how many latents fire, how often each, and which never or nearly always do.

# T token, F latent, U document, L number of latents on a token (0 … F), B bin, R resample
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from scipy import stats as scipy_stats
from torch import Tensor

from saeops.sae.codes import Codes
from saeops.stats import MIN_UNITS, Bootstrap, Interval, percentile_interval, resample_counts, rule_of_three

Array = np.ndarray

BINS_PER_OCTAVE = 4
OCTAVES = (-12, 14)
BIN_EDGES = 2.0 ** np.arange(OCTAVES[0], OCTAVES[1] + 1e-9, 1 / BINS_PER_OCTAVE)
"""Edges of the activation histograms; what lies outside counts in the outermost bin."""


@dataclass(frozen=True)
class Firing:
    """What fired where, summed by document."""

    tokens_U: Int[Array, " U"]
    active_UF: sp.csr_array
    """Tokens of each document on which each latent fires."""
    l0_UL: sp.csr_array
    """Tokens of each document on which exactly L latents fire."""
    max_F: Float[Array, " F"]
    """Largest activation of each latent."""
    histogram_FB: Int[Array, "F B"]
    """Tokens with an activation between BIN_EDGES[b] and BIN_EDGES[b + 1]."""

    @property
    def tokens(self) -> int:
        """T."""
        return int(self.tokens_U.sum())

    @property
    def n_active_F(self) -> Int[Array, " F"]:
        """Tokens on which each latent fires."""
        return np.asarray(self.active_UF.sum(axis=0)).astype(np.int64)

    @property
    def density_F(self) -> Float[Array, " F"]:
        """Share of tokens on which each latent fires."""
        return self.n_active_F / max(self.tokens, 1)


class SparsityMeter:
    """Adds up `Firing` from a stream of codes; memory by documents and latents, not by tokens."""

    def __init__(self, documents: int, latents: int) -> None:
        self._tokens_U = np.zeros(documents, dtype=np.int64)
        self._active_UF = sp.csr_array((documents, latents), dtype=np.int64)
        self._l0_UL = sp.csr_array((documents, latents + 1), dtype=np.int64)
        self._max_F = torch.zeros(latents)
        self._histogram = np.zeros(latents * (len(BIN_EDGES) - 1), dtype=np.int64)

    def add(self, document_T: Int[Tensor, " T"], codes: Codes) -> None:
        """Codes of tokens; document_T says which document (0 … U − 1) each belongs to."""
        document_T = document_T.cpu().long()
        latent, value, rows = codes.latent.cpu(), codes.value.cpu().float(), codes.rows().cpu()
        l0_T = codes.l0().cpu().numpy()
        self._tokens_U += np.bincount(document_T.numpy(), minlength=len(self._tokens_U))
        self._active_UF += _counted(document_T[rows].numpy(), latent.numpy(), self._active_UF.shape)
        self._l0_UL += _counted(document_T.numpy(), l0_T, self._l0_UL.shape)
        self._max_F.scatter_reduce_(0, latent.long(), value, "amax")
        bins = len(BIN_EDGES) - 1
        place = np.clip(np.searchsorted(BIN_EDGES, value.numpy(), side="right") - 1, 0, bins - 1)
        self._histogram += np.bincount(latent.numpy() * bins + place, minlength=len(self._histogram))

    def firing(self) -> Firing:
        """What was added so far."""
        histogram = self._histogram.reshape(-1, len(BIN_EDGES) - 1)
        return Firing(self._tokens_U, self._active_UF, self._l0_UL, self._max_F.numpy(), histogram)


def _counted(row: Array, column: Array, shape: tuple[int, int]) -> sp.csr_array:
    return sp.csr_array((np.ones(len(row), dtype=np.int64), (row, column)), shape=shape)


@dataclass(frozen=True)
class Densities:
    """What the sparsity figures are measured on."""

    firing: Firing
    dense_above: float
    """A latent firing on a larger share of tokens is dense."""


def l0_quantile(firing: Firing, share: float, *, level: float = 0.95) -> Interval:
    """The smallest L that at least `share` of the tokens do not exceed.

    Its interval is that of the share of tokens at or below it, jackknifed over
    documents and carried over to L (Woodruff 1952, JASA 47:635): resampled
    quantiles of a tail cover too rarely.
    """
    l0_UL = firing.l0_UL[firing.tokens_U > 0]
    documents = l0_UL.shape[0]
    used_L = np.flatnonzero(np.asarray(l0_UL.sum(axis=0)))
    below_UL = l0_UL[:, used_L].toarray().astype(np.float64).cumsum(axis=1)
    tokens_U = below_UL[:, -1]
    below_L = below_UL.sum(axis=0) / tokens_U.sum()

    def reached(wanted: float) -> int:
        # A share reached to the last bit counts as reached, and the largest L has them all.
        return int((below_L >= min(wanted, 1.0) - 1e-12).argmax())

    place = reached(share)
    point = float(used_L[place])
    if documents < MIN_UNITS:
        note = f"fewer than {MIN_UNITS} documents"
        return Interval(point, None, None, documents, "documents", level, note)
    off_U = below_UL[:, place] - below_L[place] * tokens_U
    pull_U = np.divide(off_U, tokens_U.sum() - tokens_U)
    error = np.sqrt((documents - 1) / documents * (pull_U**2).sum())
    half = float(scipy_stats.t.ppf(0.5 + level / 2, documents - 1) * error)
    low, high = (float(used_L[reached(wanted)]) for wanted in (share - half, share + half))
    return Interval(point, min(low, point), max(high, point), documents, "documents", level)


def dead_fraction(firing: Firing, *, level: float = 0.95) -> Interval:
    """Share of latents that fire on none of the tokens, with a jackknife over documents.

    A bootstrap is wrong here: a resample leaves documents out, so it only ever
    loses latents. Leaving out one document loses those that fire in no other,
    and the spread of that number gives the error, as for the number of species
    in a sample (Burnham & Overton 1979, Ecology 60:927). It errs on the wide
    side, as jackknifed variances do (Efron & Stein 1981, Ann. Stat. 9:586).
    """
    active_UF = firing.active_UF[firing.tokens_U > 0]
    documents, latents = active_UF.shape
    in_documents_F = np.bincount(active_UF.nonzero()[1], minlength=latents)
    point = float((in_documents_F == 0).mean())
    note = f"a silent latent may still fire on up to {rule_of_three(firing.tokens, level=level):.2g} of tokens"
    if documents < MIN_UNITS:
        note = f"fewer than {MIN_UNITS} documents; {note}"
        return Interval(point, None, None, documents, "documents", level, note)
    document, latent = active_UF.nonzero()
    only_here_U = np.bincount(document[in_documents_F[latent] == 1], minlength=documents) / latents
    error = np.sqrt((documents - 1) / documents * ((only_here_U - only_here_U.mean()) ** 2).sum())
    half = float(scipy_stats.t.ppf(0.5 + level / 2, documents - 1) * error)
    low, high = max(0.0, point - half), min(1.0, point + half)
    return Interval(point, low, high, documents, "documents", level, note)


def dense_fraction(firing: Firing, draw: Bootstrap, *, dense_above: float) -> Interval:
    """Share of latents that fire on more than `dense_above` of the tokens."""
    seen = firing.tokens_U > 0
    tokens_U = firing.tokens_U[seen].astype(np.float64)
    active_FU = firing.active_UF[seen].T.tocsr().astype(np.float64)
    counts = resample_counts(len(tokens_U), resamples=draw.resamples, seed=draw.seed)
    limit_R = dense_above * (counts @ tokens_U)
    draws = np.concatenate(
        # A few resamples at a time: F × R would not stay small.
        [((active_FU @ part.T) > limit).mean(axis=0) for part, limit in _chunks(counts, limit_R, size=64)]
    )
    point = float((active_FU.sum(axis=1) > dense_above * tokens_U.sum()).mean())
    return percentile_interval(point, draws, n=len(tokens_U), unit="documents")


def _chunks(counts: Array, limit_R: Array, *, size: int) -> list[tuple[Array, Array]]:
    return [(counts[i : i + size], limit_R[i : i + size]) for i in range(0, len(counts), size)]
