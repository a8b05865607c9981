"""What the page's feature browser says of every latent: an index of all, and details in blocks of a few hundred.

Both are plain JSON values; `js/data.js` reads them. Format, with F latents in the order drawn:

- index: a column a fact, each with F entries; token texts are numbers into `strings`.
- details: F objects, cut into blocks of `BLOCK` latents.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from saeops.report.contents import Contents
from saeops.report.details import Details
from saeops.report.excerpts import Excerpts, excerpts
from saeops.report.index import BLOCK, Judged, index
from saeops.report.strings import StringTable, Texts

Array = np.ndarray

FIRES_SHOWN = 4
"""Tokens that stand for a latent in the list."""


@dataclass(frozen=True)
class Features:
    """Data of the feature browser."""

    index: dict[str, Any]
    details: tuple[list[dict[str, Any]], ...]
    """Blocks of `BLOCK` latents."""
    excerpts: Excerpts


def features(contents: Contents, order: Int[Array, " F"], judged: Judged, texts: Texts) -> Features:
    """Index and details of every latent.

    Args:
        order: all latents, in the order shown first.
    """
    shown = excerpts(contents.contexts)
    text_of = _token_texts(shown.contexts, texts)
    fires = _fires(shown.contexts, text_of)
    table = _strings(contents, shown.contexts, text_of)
    details = Details(contents, shown.contexts, text_of, table, judged.min_positives)
    rows = [int(latent) for latent in order]
    blocks = tuple([details(f) for f in rows[start : start + BLOCK]] for start in range(0, len(rows), BLOCK))
    return Features(index(contents, rows, judged, table, fires), blocks, shown)


def _token_texts(contexts: pd.DataFrame, texts: Texts) -> dict[int, str]:
    """The text of every token id shown; each is asked for once."""
    ids = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *contexts["tokens"]])).astype(int).tolist()
    return dict(zip(ids, texts(ids), strict=True))


def _fires(contexts: pd.DataFrame, text_of: Mapping[int, str]) -> dict[int, list[str]]:
    """The tokens that a latent's shown contexts were picked for, the strongest first."""
    found: dict[int, list[str]] = {}
    places = (contexts["position"] - contexts["start"]).tolist()
    for latent, tokens, place in zip(contexts["latent"].tolist(), contexts["tokens"], places, strict=True):
        seen = found.setdefault(latent, [])
        text = text_of[int(tokens[place])]
        if text not in seen and len(seen) < FIRES_SHOWN:
            seen.append(text)
    return found


def _strings(contents: Contents, contexts: pd.DataFrame, text_of: Mapping[int, str]) -> StringTable:
    counted: Counter[str] = Counter()
    flat = np.concatenate([np.zeros(0, dtype=np.int64), *contexts["tokens"]]).astype(int)
    ids, amounts = np.unique(flat, return_counts=True)
    for token, amount in zip(ids.tolist(), amounts.tolist(), strict=True):
        counted[text_of[token]] += amount
    for column in ("raised_tokens", "lowered_tokens"):
        for tokens in contents.latents[column]:
            counted.update(tokens)
    counted.update(contents.latents["top_token"])
    return StringTable.of(counted)
