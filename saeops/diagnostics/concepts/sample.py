"""Which tokens of a split are looked at, what is known of them, and what an SAE makes of them.

Documents are drawn whole, up to a number of tokens, so that memory is bounded by it. What is known of the tokens
(labels of concepts, first letters) is read from the text alone, once for all SAEs.

# U document of the split, N token of the drawn documents, T token of these that counts, C concept, W word,
# E width of the target
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saeops.activations.pairing import PairedTokens, batches_in_order
from saeops.activations.reader import ActivationSet
from saeops.activations.split import Split
from saeops.diagnostics.concepts.rules import CONCEPTS
from saeops.diagnostics.concepts.text import RunningText
from saeops.diagnostics.concepts.words import NO_WORD, Part, Texts, Vocabulary
from saeops.errors import StageMissing
from saeops.sae.canonical import Sae
from saeops.sae.codes import Codes

Array = np.ndarray
BATCH_TOKENS = 4096
TOKENS = 60_000
"""Most tokens drawn from a split."""


@dataclass(frozen=True)
class CodedTokens:
    """Tokens with the latents that fire on them and the concepts that hold there, in order."""

    codes: Codes
    document_T: Int[Array, " T"]
    """Row of the document among the split's, ascending by number."""
    label_TC: Bool[Array, "T C"]
    documents: int
    """U, those not drawn included."""

    def shifted(self, seed: int) -> "CodedTokens":
        """The null: labels moved along the tokens, round the end, a distance of its own a concept.

        What holds for runs of tokens still does, and as often; only the meaning is gone.
        """
        T, C = self.label_TC.shape
        distance_C = np.random.default_rng(seed).integers(T // 4, T - T // 4 + 1, size=C)
        moved = [np.roll(self.label_TC[:, c], distance_C[c]) for c in range(C)]
        return replace(self, label_TC=np.stack(moved, axis=1))


@dataclass(frozen=True)
class CodedWords:
    """Tokens that begin a word, with the latents that fire and the activation these are to give back."""

    codes: Codes
    y_WE: Float[Tensor, "W E"]
    letter_W: Int[Array, " W"]
    """0 … 25."""
    document_W: Int[Array, " W"]
    documents: int


@dataclass(frozen=True)
class Coded:
    """What one pass over a sample gives."""

    tokens: CodedTokens
    words: CodedWords


@dataclass(frozen=True)
class Sample:
    """The documents drawn from a split, and what their text says of every token."""

    split: Split
    documents: int
    """U."""
    row_S: Int[Array, " S"]
    """Rows of the drawn documents among the split's, ascending."""
    number_S: Int[Array, " S"]
    offset_S: Int[Array, " S+1"]
    """Document s owns the tokens offset[s] to offset[s + 1]."""
    label_NC: Bool[Array, "N C"]
    letter_N: Int[Array, " N"]

    @classmethod
    def draw(
        cls, acts: ActivationSet, split: Split, part: Part, texts: Texts, *, seed: int, tokens: int = TOKENS
    ) -> Self:
        """Documents at random until `tokens` are full, at least one; words of one half."""
        table = acts.documents
        table = table[table["split"] == split].sort_values("document").reset_index(drop=True)
        order = np.random.default_rng(seed).permutation(len(table))
        fits = table["n_tokens"].to_numpy()[order].cumsum() <= tokens
        row_S = np.sort(order[: max(1, int(fits.sum()))])
        ids = [table["tokens"][row] for row in row_S.tolist()]
        id_N = np.concatenate(ids)
        vocabulary = Vocabulary.of(id_N, texts)
        return cls(
            split,
            len(table),
            row_S,
            table["document"].to_numpy()[row_S],
            np.concatenate([[0], np.cumsum([len(part) for part in ids])]),
            np.concatenate([_labels(vocabulary, part) for part in ids]),
            vocabulary.letters(id_N, part, seed=seed),
        )

    def coded(self, acts: ActivationSet, sae: Sae) -> Coded:
        """Encode the tokens that count; activations are kept of words only.

        Raises:
            SiteUnknown: a site of the SAE was not harvested.
            SitesUnpaired: a transcoder's sites do not hold the same tokens.
            StageMissing: none of the drawn documents holds a token that counts.
        """
        codes: list[Codes] = []
        y: list[Tensor] = []
        places: list[Array] = []
        for batch in batches_in_order(acts, sae.meta.sites, self.split, BATCH_TOKENS):
            drawn, place_T = self._drawn(batch)
            codes.append(sae.encode(batch.x_TD[drawn]))
            y.append(batch.y_TE[drawn][self.letter_N[place_T] != NO_WORD].clone())
            places.append(place_T)
        place_T = np.concatenate([*places, np.zeros(0, dtype=np.int64)])
        if not len(place_T):
            raise StageMissing(f"no {self.split} tokens at {sae.meta.site}", hint="run `saeops harvest` with more")
        return self._joined(Codes.concatenate(codes), torch.cat(y), place_T)

    def _drawn(self, batch: PairedTokens) -> tuple[Int[Tensor, " T"], Int[Array, " T"]]:
        """The batch's tokens that belong to drawn documents, and their places in the sample."""
        document_B = batch.tokens.document.numpy()
        s_B = np.minimum(np.searchsorted(self.number_S, document_B), len(self.number_S) - 1)
        drawn = np.flatnonzero(self.number_S[s_B] == document_B)
        place_T = self.offset_S[s_B[drawn]] + batch.tokens.position.numpy()[drawn]
        return torch.from_numpy(drawn), place_T

    def _joined(self, codes: Codes, y_WE: Float[Tensor, "W E"], place_T: Int[Array, " T"]) -> Coded:
        row_T = self.row_S[np.searchsorted(self.offset_S, place_T, side="right") - 1]
        letter_T = self.letter_N[place_T]
        word_W = np.flatnonzero(letter_T != NO_WORD)
        word_codes = codes.take(torch.from_numpy(word_W))
        return Coded(
            CodedTokens(codes, row_T, self.label_NC[place_T], self.documents),
            CodedWords(word_codes, y_WE, letter_T[word_W], row_T[word_W], self.documents),
        )


def _labels(vocabulary: Vocabulary, id_N: Int[Array, " N"]) -> Bool[Array, "N C"]:
    document = RunningText.of([vocabulary.text_V[place] for place in vocabulary.place(id_N).tolist()])
    return np.stack([concept.rule(document) for concept in CONCEPTS], axis=1)
