"""What the page knows of all latents at once: enough to list, search, sort and filter them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from saeops.diagnostics.sparsity import BIN_EDGES, BINS_PER_OCTAVE
from saeops.report.blocks import rounded
from saeops.report.contents import Contents
from saeops.report.details import LABEL_PARTS, LEVELS
from saeops.report.effects import steering
from saeops.report.rows import title_of
from saeops.report.sampling import chosen_labels
from saeops.report.strings import StringTable

BLOCK = 256
"""Latents whose details are unpacked together."""
FLAGS = ("living", "labelled", "tested", "trusted", "waiting", "reviewed", "benched")
QUALITY = ("coherence", "ablation_sparsity", "logit_specificity", "max_cosine", "seed_cosine")


@dataclass(frozen=True)
class Judged:
    """What the params and the people say, beside the bundle's own tables."""

    min_positives: int
    trusted_confidence: float
    waiting: frozenset[int]
    reviewed: frozenset[int]


def index(
    contents: Contents,
    rows: Sequence[int],
    judged: Judged,
    table: StringTable,
    fires: Mapping[int, Sequence[str]],
) -> dict[str, Any]:
    best = chosen_labels(contents.labels).set_index("latent")
    text = best["text"].dropna().to_dict()
    top, active = contents.latents["top_token"].to_dict(), contents.latents["n_active"].to_dict()
    flags = _flags(contents, best, judged)
    return {
        "block": BLOCK,
        "levels": LEVELS,
        "bins_per_octave": BINS_PER_OCTAVE,
        "first_edge": float(BIN_EDGES[0]),
        "label_parts": [[name, meaning] for name, _, _, meaning in LABEL_PARTS],
        "flag_names": FLAGS,
        "strings": table.strings,
        "latent": rows,
        "label": [text.get(f) for f in rows],
        "fires": [table.numbers(dict.fromkeys([top[f], *fires.get(f, ())])) if top[f] else [] for f in rows],
        "flags": [flags[f] for f in rows],
        "n_active": [int(active[f]) for f in rows],
        "columns": [_column(name, title, values, rows) for name, title, values in _columns(contents, best)],
    }


def _flags(contents: Contents, best: pd.DataFrame, judged: Judged) -> dict[int, int]:
    """By latent, the sum of 2 to the place in `FLAGS` of what holds of it."""
    labelled = best[best["text"].notna()]
    holds: dict[str, Iterable[int]] = {
        "living": contents.latents.index[contents.latents["n_active"] > 0],
        "labelled": labelled.index,
        "tested": labelled.index[labelled["n_positive"] >= judged.min_positives],
        "trusted": labelled.index[labelled["confidence"] >= judged.trusted_confidence],
        "waiting": judged.waiting,
        "reviewed": judged.reviewed,
        "benched": contents.effects["latent"].unique(),
    }
    flags = dict.fromkeys(contents.latents.index.tolist(), 0)
    for bit, name in enumerate(FLAGS):
        for latent in holds[name]:
            flags[int(latent)] |= 1 << bit
    return flags


def _columns(contents: Contents, best: pd.DataFrame) -> Iterator[tuple[str, str, "pd.Series[float]"]]:
    living = contents.latents[contents.latents["n_active"] > 0]
    yield "density", "Density", contents.latents["density"]
    yield "confidence", "Label confidence", best.loc[best["text"].notna(), "confidence"]
    yield "effect", "Steering beyond random", steering(contents.effects)
    yield "max_activation", "Strongest activation", living["max_activation"]
    for name in QUALITY:
        if name in contents.diagnosed:
            yield name, title_of(name), contents.diagnosed[name]


def _column(name: str, title: str, values: "pd.Series[float]", rows: Sequence[int]) -> dict[str, Any]:
    known = values.dropna().to_dict()
    return {"name": name, "title": title, "values": [rounded(known.get(f)) for f in rows]}
