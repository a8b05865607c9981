"""The same held-out tokens through two SAEs, of one activation set or of two that read the same documents.

# T token
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int

from saeops.activations.reader import ActivationSet
from saeops.sae.canonical import Sae
from saeops.sae.codes import Codes

Array = np.ndarray

SPLIT = "eval"
BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Reading:
    """An SAE, and an activation set with its site."""

    sae: Sae
    acts: ActivationSet

    @property
    def documents(self) -> pd.DataFrame:
        """Held-out documents by sha256: number, and tokens."""
        table = self.acts.documents
        return table[table["split"] == SPLIT].set_index("sha256")


def shared_documents(first: Reading, second: Reading, *, tokens: int) -> tuple[str, ...]:
    """Documents that both read as the same token ids, in order of sha256, until they hold so many tokens.

    A document that another tokenizer cut otherwise is left out: its positions mean other places of the text.
    """
    ours, theirs = first.documents["tokens"], second.documents["tokens"]
    chosen: list[str] = []
    counted = 0
    for name in sorted(set(ours.index) & set(theirs.index)):
        if counted >= tokens:
            break
        if np.array_equal(ours[name], theirs[name]):
            chosen.append(name)
            counted += len(ours[name])
    return tuple(chosen)


def codes_on_both(first: Reading, second: Reading, *, tokens: int) -> tuple[Codes, Codes] | None:
    """Codes of both SAEs on the tokens that count in both sets, in one order; None: there are none.

    Args:
        tokens: about how many, in whole documents.
    """
    names = shared_documents(first, second, tokens=tokens)
    if not names:
        return None
    sides = [_encoded(side, {name: rank for rank, name in enumerate(names)}) for side in (first, second)]
    # A norm limit may leave out a token on one side alone.
    _, *places = np.intersect1d(sides[0][1], sides[1][1], assume_unique=True, return_indices=True)
    if not len(places[0]):
        return None
    ours, theirs = (codes.take(torch.from_numpy(rows)) for (codes, _), rows in zip(sides, places, strict=True))
    return ours, theirs


def _encoded(side: Reading, rank: Mapping[str, int]) -> tuple[Codes, Int[Array, " T"]]:
    """Codes on the chosen documents, and a number for each token that is the same on the other side."""
    table = side.documents.loc[list(rank)]
    longest = 1 << 32
    numbers = np.full(int(side.acts.documents["document"].max()) + 1, -1, dtype=np.int64)
    numbers[table["document"].to_numpy()] = [rank[name] for name in table.index]
    codes, names = [], []
    for batch in side.acts.batches(side.sae.meta.site, SPLIT, BATCH_TOKENS):
        document_T = numbers[batch.document.numpy()]
        kept = np.flatnonzero(document_T >= 0)
        if len(kept):
            codes.append(side.sae.encode(batch.activations[torch.from_numpy(kept)]))
            names.append(document_T[kept] * longest + batch.position.numpy()[kept])
    if not codes:
        return Codes.from_dense(torch.zeros(0, side.sae.meta.d_sae)), np.zeros(0, np.int64)
    return Codes.concatenate(codes), np.concatenate(names)
