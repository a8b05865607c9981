"""Sums of what each latent does in each document, on the old model and on the new: memory by latents × documents.

All that is said of single latents follows from them, with its interval: they are sums over documents, and
documents are what was sampled.

# F latent, U document, T token, P pair (a latent that fires in a document under either model), S sum,
# N entry (one latent firing on one token)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saeops.sae.codes import Codes

Array = np.ndarray

SUMS = ("n_old", "n_new", "old", "new", "old_square", "new_square", "product")
"""Tokens it fires on under each model, Σa, Σb, Σa², Σb², Σab: a its activation under the old model, b the new."""


@dataclass(frozen=True)
class PairSums:
    """Sums by latent and document; documents in which a latent fires under neither model have no row."""

    document: Int[Array, " P"]
    latent: Int[Array, " P"]
    value_PS: Float[Array, "P S"]

    @classmethod
    def of(cls, document_T: Int[Tensor, " T"], old: Codes, new: Codes) -> Self:
        """Codes of the same tokens under both models; document_T says which document each token belongs to."""
        doc_T = document_T.cpu().numpy().astype(np.int64)
        (old_key, a), (new_key, b) = (_entries(codes) for codes in (old, new))
        # Both ascend: codes are ordered by token, then by latent.
        place = np.minimum(np.searchsorted(new_key, old_key), max(len(new_key) - 1, 0))
        hit = new_key[place] == old_key if len(new_key) else np.zeros(len(old_key), dtype=bool)
        product = np.where(hit, a * b[place], 0.0) if len(new_key) else np.zeros(len(a))
        zero = np.zeros
        values = np.concatenate(
            [
                np.stack([np.ones(len(a)), zero(len(a)), a, zero(len(a)), a * a, zero(len(a)), product], axis=1),
                np.stack(
                    [zero(len(b)), np.ones(len(b)), zero(len(b)), b, zero(len(b)), b * b, zero(len(b))], axis=1
                ),
            ]
        )
        key = np.concatenate([old_key, new_key])
        return cls.summed(doc_T[key // old.n_latents], key % old.n_latents, values)

    @classmethod
    def apart(cls, old_T: Int[Tensor, " T"], old: Codes, new_T: Int[Tensor, " T"], new: Codes) -> Self:
        """Codes of different tokens of the same documents: everything but the product."""
        return cls.merged([cls.of(old_T, old, _silent(old)), cls.of(new_T, _silent(new), new)])

    @classmethod
    def summed(cls, document: Int[Array, " N"], latent: Int[Array, " N"], value_NS: Float[Array, "N S"]) -> Self:
        """Rows of the same document and latent become one."""
        span = int(latent.max(initial=0)) + 1
        key, place = np.unique(document * span + latent, return_inverse=True)
        columns = [np.bincount(place, weights=column, minlength=len(key)) for column in value_NS.T]
        return cls(key // span, key % span, np.stack(columns, axis=1) if len(key) else np.zeros((0, len(SUMS))))

    @classmethod
    def merged(cls, parts: Sequence[Self]) -> Self:
        """The sums of several batches or groups of documents together."""
        return cls.summed(
            np.concatenate([part.document for part in parts]),
            np.concatenate([part.latent for part in parts]),
            np.concatenate([part.value_PS for part in parts]),
        )

    def column(self, name: str) -> Float[Array, " P"]:
        """One of `SUMS`."""
        return self.value_PS[:, SUMS.index(name)]

    def by_latent(self, name: str, latents: int) -> Float[Array, " F"]:
        """One of `SUMS`, over all documents."""
        return np.bincount(self.latent, weights=self.column(name), minlength=latents)

    def documents_by_latent(self, name: str, latents: int) -> Int[Array, " F"]:
        """In how many documents one of `SUMS` is above 0."""
        return np.bincount(self.latent[self.column(name) > 0], minlength=latents)


def _entries(codes: Codes) -> tuple[Int[Array, " N"], Float[Array, " N"]]:
    rows, latent = codes.rows().cpu().numpy(), codes.latent.cpu().numpy()
    return rows.astype(np.int64) * codes.n_latents + latent, codes.value.cpu().double().numpy()


def _silent(codes: Codes) -> Codes:
    """As many tokens, on which nothing fires."""
    return Codes(torch.zeros_like(codes.offsets), codes.latent[:0], codes.value[:0], codes.n_latents)


@dataclass(frozen=True)
class Exposed:
    """Sums, and how much of each document either side saw: tokens, or characters where tokens differ."""

    sums: PairSums
    old_U: Float[Array, " U"]
    new_U: Float[Array, " U"]
    latents: int

    def old_rate(self, name: str) -> Float[Array, " F"]:
        """A sum of the old side by what it saw."""
        return self.sums.by_latent(name, self.latents) / self.old_U.sum()

    def new_rate(self, name: str) -> Float[Array, " F"]:
        return self.sums.by_latent(name, self.latents) / self.new_U.sum()

    def halves(self, first_U: Array) -> "Exposed":
        """The old model against itself: documents where `first_U` holds stand as old, the others as new."""
        sums = self.sums
        old = first_U[sums.document]
        value_PS = np.zeros_like(sums.value_PS)
        for there, here in (("n_old", "n_new"), ("old", "new"), ("old_square", "new_square")):
            value_PS[:, SUMS.index(there)] = np.where(old, sums.column(there), 0.0)
            value_PS[:, SUMS.index(here)] = np.where(old, 0.0, sums.column(there))
        kept = (value_PS > 0).any(axis=1)
        halved = PairSums(sums.document[kept], sums.latent[kept], value_PS[kept])
        return Exposed(
            halved, np.where(first_U, self.old_U, 0.0), np.where(first_U, 0.0, self.old_U), self.latents
        )

    def as_documents(self) -> "Exposed":
        """Each document as one reading of a latent: its mean activation there. For correlation over documents."""
        sums, old, new = self.sums, self.sums.column("old"), self.sums.column("new")
        a, b = old / self.old_U[sums.document], new / self.new_U[sums.document]
        value_PS = np.stack([a > 0, b > 0, a, b, a * a, b * b, a * b], axis=1).astype(np.float64)
        ones_U = np.ones_like(self.old_U)
        return Exposed(PairSums(sums.document, sums.latent, value_PS), ones_U, ones_U, self.latents)
