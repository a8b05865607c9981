"""Intervals of what thousands of latents do, all at once, from sums over documents.

Each figure is linearised: what a document adds to it (its influence) is known from the sums, and the spread of
that over documents is the figure's error, as the jackknife would give it (Efron & Tibshirani 1993, ch. 11). A
latent that fires in few documents has few that speak of it: Student's t with one less than those many degrees
of freedom.

# F latent, U document, P pair (latent, document)
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import stats as scipy_stats

from saeops.drift.audit.sums import Exposed

Array = np.ndarray
LARGEST_CORRELATION = 1 - 1e-12
LARGEST_LOG = 300.0
"""A bound of a ratio beyond e to this says nothing, and must not overflow."""


@dataclass(frozen=True)
class Bounded:
    """A figure of every latent on a scale on which its error is even, with its error there; NaN where unknown.

    Where nothing at all fires on the new side, `cap_F` alone bounds it from above.
    """

    kind: str
    """`log`: the figure is a ratio; `fisher`: a correlation."""
    scaled_F: Float[Array, " F"]
    error_F: Float[Array, " F"]
    freedom_F: Int[Array, " F"]
    """Degrees of freedom."""
    silent_documents_F: Int[Array, " F"]
    """Where the new side never fires: documents in which the old side does; else 0."""

    @property
    def point_F(self) -> Float[Array, " F"]:
        return self._unscaled(self.scaled_F)

    def low_F(self, tail: float) -> Float[Array, " F"]:
        """The bound below which the truth lies with at most this chance."""
        low = self._unscaled(self.scaled_F - self._reach(tail))
        return np.where(self.silent_documents_F > 0, 0.0, low)

    def high_F(self, tail: float) -> Float[Array, " F"]:
        """The bound above which the truth lies with at most this chance."""
        high = self._unscaled(self.scaled_F + self._reach(tail))
        # Never seen in k documents: 1 − tail^(1/k), the rule of three (Hanley & Lippman-Hand 1983).
        unseen = 1 - tail ** (1 / np.maximum(self.silent_documents_F, 1))
        return np.where(self.silent_documents_F > 0, unseen, high)

    def _reach(self, tail: float) -> Float[Array, " F"]:
        t = scipy_stats.t.ppf(1 - tail, np.maximum(self.freedom_F, 1))
        return np.where(self.error_F > 0, t * self.error_F, self.error_F)

    def _unscaled(self, value_F: Float[Array, " F"]) -> Float[Array, " F"]:
        return np.exp(np.minimum(value_F, LARGEST_LOG)) if self.kind == "log" else np.tanh(value_F)


def ratio(exposed: Exposed, old: str, new: str) -> Bounded:
    """New rate ÷ old rate of a sum (`n_old` and `n_new`, or `old` and `new`), on a log scale.

    Where both sides saw the same documents, what a document does to both cancels.
    """
    sums, F = exposed.sums, exposed.latents
    total_old, total_new = sums.by_latent(old, F), sums.by_latent(new, F)
    both = (total_old > 0) & (total_new > 0)
    share_U = exposed.new_U / exposed.new_U.sum() - exposed.old_U / exposed.old_U.sum()
    pull_P = _over(sums.column(new), total_new[sums.latent]) - _over(sums.column(old), total_old[sums.latent])
    error_F = _error(sums.latent, sums.document, pull_P, -share_U, F)
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.log(exposed.new_rate(new)) - np.log(exposed.old_rate(old))
    fires = (sums.column(old) > 0) | (sums.column(new) > 0)
    documents = np.bincount(sums.latent[fires], minlength=F)
    gone = (total_old > 0) & (total_new == 0)
    silent = np.where(gone, sums.documents_by_latent(old, F), 0)
    nothing = np.where(gone, -np.inf, np.nan)
    return Bounded("log", np.where(both, scaled, nothing), np.where(both, error_F, np.nan), documents - 1, silent)


def correlation(exposed: Exposed) -> Bounded:
    """Pearson's r of a latent's activations under both models on the same tokens, silent ones included.

    On Fisher's scale, atanh r; a document's influence is Σ (z_a z_b − r (z_a² + z_b²) / 2) over its tokens
    (Devlin, Gnanadesikan & Kettenring 1975, Biometrika 62:531).
    """
    sums, F, n_U = exposed.sums, exposed.latents, exposed.old_U
    T = n_U.sum()
    mean_a, mean_b = sums.by_latent("old", F) / T, sums.by_latent("new", F) / T
    var_a = sums.by_latent("old_square", F) / T - mean_a**2
    var_b = sums.by_latent("new_square", F) / T - mean_b**2
    known = (var_a > 1e-300) & (var_b > 1e-300)
    scale = np.sqrt(np.where(known, var_a * var_b, 1.0))
    r_F = np.where(known, (sums.by_latent("product", F) / T - mean_a * mean_b) / scale, 0.0)
    r_F = np.clip(r_F, -LARGEST_CORRELATION, LARGEST_CORRELATION)
    var_a, var_b = np.where(known, var_a, 1.0), np.where(known, var_b, 1.0)

    def influence(latent: Array, n: Array, a: Array, b: Array, aa: Array, bb: Array, ab: Array) -> Array:
        ma, mb = mean_a[latent], mean_b[latent]
        cross = (ab - ma * b - mb * a + n * ma * mb) / scale[latent]
        squares = (aa - 2 * ma * a + n * ma**2) / var_a[latent] + (bb - 2 * mb * b + n * mb**2) / var_b[latent]
        return np.asarray(cross - r_F[latent] * squares / 2)

    columns = [sums.column(name) for name in ("old", "new", "old_square", "new_square", "product")]
    pull_P = influence(sums.latent, n_U[sums.document], *columns)
    zero = np.zeros(F)
    silent_F = influence(np.arange(F), np.ones(F), zero, zero, zero, zero, zero)
    error_F = _error_by_latent(sums.latent, sums.document, pull_P, silent_F, n_U) / T
    documents = np.bincount(sums.latent, minlength=F)
    scaled = np.where(known, np.arctanh(r_F), np.nan)
    error = np.where(known, error_F / (1 - r_F**2), np.nan)
    # Two sides that are equal to the last bit have no error, whatever rounding says.
    error = np.where(np.abs(r_F) >= 1 - 1e-9, 0.0, error)
    return Bounded("fisher", scaled, error, documents - 1, np.zeros(F, dtype=np.int64))


def _error(latent: Array, document: Array, pull_P: Array, offset_U: Array, F: int) -> Float[Array, " F"]:
    """√(U / (U − 1) · Σ_U (pull + offset)²), where pull is 0 in the documents that have no row."""
    with_P, U = pull_P + offset_U[document], len(offset_U)
    square = np.bincount(latent, weights=with_P**2 - offset_U[document] ** 2, minlength=F) + (offset_U**2).sum()
    return np.sqrt(np.maximum(square, 0.0) * U / max(U - 1, 1))


def _error_by_latent(latent: Array, document: Array, pull_P: Array, silent_F: Array, n_U: Array) -> Array:
    """The same, where a document without a row pulls by its tokens × what a silent token does."""
    silent_P, U = silent_F[latent] * n_U[document], len(n_U)
    square = np.bincount(latent, weights=pull_P**2 - silent_P**2, minlength=len(silent_F))
    return np.sqrt(np.maximum(square + silent_F**2 * (n_U**2).sum(), 0.0) * U / max(U - 1, 1))


def _over(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
