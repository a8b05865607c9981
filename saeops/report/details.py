"""What the page shows of one latent once it is opened: labels and their tests, contexts, logits, effects."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from saeops.report.blocks import rounded
from saeops.report.contents import Contents
from saeops.report.effects import effect_views, finite
from saeops.report.strings import StringTable

LEVELS = 99
"""Activations on a context's tokens are shown in so many steps of the latent's maximum."""


class Details:
    """One latent's details, from tables grouped once."""

    def __init__(
        self,
        contents: Contents,
        contexts: pd.DataFrame,
        text_of: Mapping[int, str],
        table: StringTable,
        min_positives: int,
    ) -> None:
        self._contents, self._table, self._min_positives = contents, table, min_positives
        self._latents = contents.latents.to_dict("index")
        self._contexts = drawn_contexts(contexts, contents.latents["max_activation"], text_of, table)
        self._labels = _grouped(contents.labels.sort_values("chosen", ascending=False, kind="stable"))
        self._benched = frozenset(contents.effects["latent"])
        self._diagnosed = contents.diagnosed.to_dict("index")

    def __call__(self, latent: int) -> dict[str, Any]:
        row = self._latents[latent]
        found = {
            "contexts": self._contexts.get(latent, []),
            "raised": self._logits(row["raised_tokens"], row["raised_logits"]),
            "lowered": self._logits(row["lowered_tokens"], row["lowered_logits"]),
            "labels": [label(record, self._min_positives) for record in self._labels.get(latent, ())],
            "effects": self._effects(latent),
            "neighbours": neighbours(row),
            "histogram": histogram(self._diagnosed.get(latent, {}).get("histogram")),
            "twin": twin(self._diagnosed.get(latent, {})),
        }
        return {name: value for name, value in found.items() if value not in (None, [], [[], []])}

    def _logits(self, tokens: Sequence[str], logits: Sequence[float]) -> list[list[Any]]:
        return [self._table.numbers(tokens), [rounded(float(logit), 3) for logit in logits]]

    def _effects(self, latent: int) -> list[list[Any]]:
        if latent not in self._benched:
            return []
        return [
            [
                view.what,
                view.metric,
                *(rounded(value, 3) for value in (view.effect.point, view.control.point, view.difference.point)),
                *(rounded(value, 3) for value in (view.difference.low, view.difference.high)),
            ]
            for view in effect_views(self._contents.effects, latent)
        ]


def drawn_contexts(
    contexts: pd.DataFrame, strongest: "pd.Series[float]", text_of: Mapping[int, str], table: StringTable
) -> dict[int, list[list[Any]]]:
    """By latent, its contexts: [activation, quantile, place of the peak, tokens, [place, level, place, level, …]].

    All contexts at once: one by one they would take most of the time that a page takes.
    """
    lengths = contexts["tokens"].map(len).to_numpy(dtype=np.int64)
    ends = np.cumsum(lengths)
    number = np.zeros(max(text_of, default=0) + 1, dtype=np.int64)
    number[list(text_of)] = table.numbers(text_of.values())
    tokens = number[_flat(contexts["tokens"]).astype(np.int64)]
    share = _flat(contexts["activations"]) / np.repeat(strongest.loc[contexts["latent"]].to_numpy(), lengths)
    fires = np.flatnonzero(share > 0)
    level = np.clip(np.rint(LEVELS * share[fires]), 1, LEVELS).astype(np.int64)
    place = fires - np.repeat(ends - lengths, lengths)[fires]
    pairs = np.stack([place, level], axis=1)
    upto = np.searchsorted(fires, ends)
    found: dict[int, list[list[Any]]] = {}
    peaks = contexts["position"] - contexts["start"]
    columns = (contexts["latent"], contexts["activation"], contexts["quantile"], peaks)
    for row, (latent, activation, quantile, peak) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
        shown = tokens[ends[row] - lengths[row] : ends[row]].tolist()
        lit = pairs[(upto[row - 1] if row else 0) : upto[row]].ravel().tolist()
        found.setdefault(latent, []).append([rounded(activation, 3), quantile, peak, shown, lit])
    return found


def _flat(lists: "pd.Series[Any]") -> np.ndarray:
    return np.concatenate([np.zeros(0), *lists])


LABEL_PARTS = (
    ("finds", "tpr", "n_positive", "true positives: share of firing snippets it recognises (TPR)"),
    ("rejects", "tnr", "n_negative", "true negatives: share of random silent snippets it rejects (TNR)"),
    ("fooled", "fp_hard", "n_hard", "false positives on silent snippets that look alike"),
    ("precision", "precision", "n_positive", "precision at the latent's natural base rate"),
)
"""Name, column, column of the sample size, and what it means."""


def label(record: Mapping[Any, Any], min_positives: int) -> dict[str, Any]:
    """One label with what its test showed."""
    text, reason = record["text"], record["unparsed"]
    scored = int(record["n_positive"]) >= min_positives
    parts = [
        [rounded(finite(record[key + end]), 3) for end in ("", "_low", "_high")] if record[count] else None
        for _, key, count, _ in LABEL_PARTS
    ]
    return {
        "text": None if pd.isna(text) else str(text),
        "unparsed": "" if pd.isna(reason) else str(reason),
        "by": str(record["labeller"]),
        "confidence": rounded(float(record["confidence"]), 3),
        "parts": parts if scored else [],
    }


def neighbours(row: Mapping[Any, Any]) -> list[list[Any]]:
    """Latents whose decoder rows are nearest, and their cosines."""
    if row.get("neighbours") is None:
        return []
    cosines = [rounded(float(cosine), 2) for cosine in row["neighbour_cosines"]]
    return [[int(latent) for latent in row["neighbours"]], cosines]


def histogram(counts: Any) -> list[Any]:
    """[first bin, counts…] of the bins between the first and the last that hold something."""
    if counts is None or not np.any(counts):
        return []
    values = np.asarray(counts, dtype=np.int64)
    held = np.flatnonzero(values)
    return [int(held[0]), *values[held[0] : held[-1] + 1].tolist()]


def twin(row: Mapping[Any, Any]) -> int | None:
    """The latent whose decoder row is most alike, where that was measured."""
    found = finite(row.get("max_cosine_latent"))
    return None if found is None else int(found)


def _grouped(frame: pd.DataFrame) -> dict[int, list[dict[Any, Any]]]:
    groups: dict[int, list[dict[Any, Any]]] = {}
    for record in frame.to_dict("records"):
        groups.setdefault(int(record["latent"]), []).append(record)
    return groups
