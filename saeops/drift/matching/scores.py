"""How alike two latents are: the cosine of their decoder rows, and the correlation of their activations.

    s = (1 − w) · cos(d_f, d_g) + w · r_fg        w = `match.activation_weight`
    r = (mean(f·g) − mean(f)·mean(g)) / (σ_f · σ_g)    over the same tokens, silent ones included (Pearson)

Without activations of both on the same tokens, s is the cosine. A latent that fires on none of these tokens has
r = 0 with one that fires; of two silent ones only the cosine says something, and s is that.

# F row, G column, T token, E width of a decoder row, C chosen row of a block
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saeops.sae.codes import Codes

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Array = np.ndarray


@dataclass(frozen=True)
class Side:
    """The living latents of one dictionary."""

    latent: Int[Array, " F"]
    """Their numbers in the dictionary."""
    direction: Float[Tensor, "F E"]
    """Decoder rows of unit norm."""
    fires: "csr_matrix | None"
    """Activations, token × latent; None: not known on tokens of both."""

    @classmethod
    def of(cls, W_dec: Float[Tensor, "all E"], codes: Codes | None, living: Bool[Array, " all"]) -> Self:
        """The living rows of a dictionary.

        Args:
            codes: on tokens that the other side has too, in the same order.
        """
        latent = np.flatnonzero(living)
        direction = torch.nn.functional.normalize(W_dec[torch.from_numpy(latent)].float(), dim=1)
        return cls(latent, direction, None if codes is None else _sparse(codes)[:, latent])

    def __len__(self) -> int:
        return len(self.latent)

    def permuted(self, generator: np.random.Generator) -> Self:
        """The null: as many latents with what all share, and nothing of what makes each itself.

        Each coordinate's values are dealt out anew among the latents, which keeps the mean direction and outlying
        coordinates; activations keep their sizes, densities and company, and go to other tokens, all alike.
        """
        dealt_FE = generator.permuted(self.direction.numpy(), axis=0)
        direction = torch.nn.functional.normalize(torch.from_numpy(dealt_FE), dim=1)
        fires = None if self.fires is None else self.fires[generator.permutation(self.fires.shape[0])]
        return type(self)(self.latent, direction, fires)

    @cached_property
    def activity(self) -> "Activity | None":
        """Standardised activations."""
        return None if self.fires is None else Activity.of(self.fires)


@dataclass(frozen=True)
class Activity:
    """Activations of mean square 1/T round their mean; the mean is kept apart, so that zeros stay zeros."""

    scaled: "csr_matrix"
    """f / (σ_f √T), latent × token."""
    mean_F: Float[Array, " F"]
    """mean(f) / σ_f"""
    silent_F: Bool[Array, " F"]
    """Fires on none of the tokens, or alike on all."""

    @classmethod
    def of(cls, fires: "csr_matrix") -> Self:
        from scipy.sparse import diags_array

        T = fires.shape[0]
        by_latent = fires.astype(np.float64).T.tocsr()
        mean_F = np.asarray(by_latent.sum(axis=1)).ravel() / T
        square_F = np.asarray(by_latent.multiply(by_latent).sum(axis=1)).ravel() / T
        variance_F = square_F - mean_F**2
        silent_F = variance_F <= 1e-12 * square_F
        scale_F = np.where(silent_F, 0, 1 / np.sqrt(np.where(silent_F, 1, variance_F)))
        scaled = (diags_array(scale_F / np.sqrt(T)) @ by_latent).tocsr().astype(np.float32)
        return cls(scaled, mean_F * scale_F, silent_F)


@dataclass(frozen=True)
class Likeness:
    """Scores of the latents of two sides (see `Scores`)."""

    first: Side
    second: Side
    activation_weight: float

    @property
    def rows(self) -> int:
        return len(self.first)

    @property
    def columns(self) -> int:
        return len(self.second)

    @property
    def with_activations(self) -> bool:
        """Whether activations count."""
        both = self.first.fires is not None and self.second.fires is not None
        return both and self.activation_weight > 0

    def block(self, row_C: Int[Tensor, " C"]) -> Float[Tensor, "C G"]:
        cosine_CG = self.cosine(row_C)
        if not self.with_activations:
            return cosine_CG
        ours, theirs = self.first.activity, self.second.activity
        assert ours is not None
        assert theirs is not None
        score_CG = torch.lerp(cosine_CG, self.correlation(row_C), self.activation_weight)
        silent_C = torch.from_numpy(ours.silent_F)[row_C]
        both_CG = silent_C[:, None] & torch.from_numpy(theirs.silent_F)
        return torch.where(both_CG, cosine_CG, score_CG) if silent_C.any() else score_CG

    def cosine(self, row_C: Int[Tensor, " C"]) -> Float[Tensor, "C G"]:
        """Of the decoder rows."""
        return (self.first.direction[row_C] @ self.second.direction.T).clamp(-1, 1)

    def correlation(self, row_C: Int[Tensor, " C"]) -> Float[Tensor, "C G"]:
        """Of the activations; 0 with a silent latent."""
        ours, theirs = self.first.activity, self.second.activity
        assert ours is not None
        assert theirs is not None
        rows = row_C.numpy()
        product_CG = (ours.scaled[rows] @ self._by_token).toarray()
        product_CG -= np.outer(ours.mean_F[rows], theirs.mean_F).astype(np.float32)
        return torch.from_numpy(product_CG).clamp(-1, 1)

    @cached_property
    def _by_token(self) -> "csr_matrix":
        assert self.second.activity is not None
        return self.second.activity.scaled.T.tocsr()

    def pairs(self, row_P: Int[Array, " P"], column_P: Int[Array, " P"]) -> "PairScores":
        """Cosine and correlation of single pairs."""
        ours, theirs = torch.from_numpy(row_P), torch.from_numpy(column_P)
        cosine_P = (
            (self.first.direction[ours] * self.second.direction[theirs]).sum(1).clamp(-1, 1).double().numpy()
        )
        if not self.with_activations:
            return PairScores(cosine_P, None)
        first, second = self.first.activity, self.second.activity
        assert first is not None
        assert second is not None
        product_P = np.asarray(first.scaled[row_P].multiply(second.scaled[column_P]).sum(axis=1)).ravel()
        return PairScores(cosine_P, np.clip(product_P - first.mean_F[row_P] * second.mean_F[column_P], -1, 1))


@dataclass(frozen=True)
class PairScores:
    """What a score of single pairs is made of."""

    cosine_P: Float[Array, " P"]
    correlation_P: Float[Array, " P"] | None
    """None: activations do not count."""


def _sparse(codes: Codes) -> "csr_matrix":
    from scipy.sparse import csr_matrix

    parts = codes.value.cpu().numpy(), codes.latent.cpu().numpy(), codes.offsets.cpu().numpy()
    return csr_matrix(parts, shape=(codes.tokens, codes.n_latents))
