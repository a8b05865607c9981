"""Concepts that people already know, and first letters: which latent tells each, and how well."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from saeops.diagnostics.concepts.metrics import PROBES
from saeops.report.contents import Contents
from saeops.report.effects import finite
from saeops.report.numbers import number, plural
from saeops.report.rows import Beside, Whisker, bounds, whisker
from saeops.report.sampling import chosen_labels
from saeops.stats import Bootstrap, Interval


@dataclass(frozen=True)
class Told:
    """One concept or letter that was measured."""

    name: str
    meaning: str
    figure: str
    interval: str
    whisker: Whisker
    latents: tuple[tuple[int, str], ...]
    """Those that stand for it, each with its label."""
    says: str


@dataclass(frozen=True)
class Known:
    """All of one kind, the best told first."""

    title: str
    question: str
    told: tuple[Told, ...]
    left_out: str
    """What could not be measured, in words; empty where all was."""


def known(contents: Contents) -> tuple[Known, ...]:
    """Concepts and letters, as far as they were measured."""
    found = (_concepts(contents), _letters(contents))
    return tuple(one for one in found if one)


def _concepts(contents: Contents) -> Known | None:
    if contents.concepts.empty:
        return None
    explained = next(metric for metric in PROBES if metric.name == "probe_explained")
    draw = Bootstrap(
        int(contents.provenance.params["diagnose"]["resamples"]), int(contents.provenance.params["seed"])
    )
    labels = _labels(contents)
    measured = contents.concepts[contents.concepts["measured"]]
    told = [
        (interval := explained.measure(measured.loc[[place]], draw), _concept(row, interval, labels))
        for place, row in zip(measured.index, measured.to_dict("records"), strict=True)
    ]
    return Known(
        "Known concepts",
        "The one latent that tells each concept best, chosen on explain documents: the share of the concept’s "
        "uncertainty that a probe on it takes away on held-out ones. The ring is the same on labels moved along "
        "the text.",
        _ranked(told, best_is_high=True),
        _left_out(contents.concepts, "concept", "too rare or too common here"),
    )


def _concept(row: Mapping[Any, Any], interval: Interval, labels: Mapping[int, str]) -> Told:
    shuffled = Interval(1 - row["shuffled_loss"] / row["entropy"], None, None, interval.n, interval.unit)
    latent = int(row["latent"])
    silence = ", by its silence" if row["weight"] < 0 else ""
    return Told(
        name=str(row["concept"]).replace("_", " "),
        meaning=str(row["meaning"]),
        figure=number(interval.point, 2),
        interval=bounds(interval),
        whisker=whisker(interval, (Beside("null", "labels moved along the text", shuffled),), None),
        latents=((latent, labels.get(latent, "not labelled")),),
        says=f"AUC {number(row['auc'], 2)}, F1 {number(row['f1'], 2)}; holds on {row['positives']:,} "
        f"of {plural(int(row['tokens']), 'token')}{silence}",
    )


def _letters(contents: Contents) -> Known | None:
    if contents.letters.empty:
        return None
    labels = _labels(contents)
    measured = contents.letters[contents.letters["measured"]]
    told = [(_rate(row), _letter(row, labels)) for row in measured.to_dict("records")]
    return Known(
        "Absorption by first letter",
        "Words on which the latents that stand for their first letter are silent and one other latent carries it, "
        "as a share of the words on which a probe tells the letter. Lower is better.",
        _ranked(told, best_is_high=False),
        _left_out(contents.letters, "letter", "weak probe, few words, or no latent stands for it"),
    )


def _rate(row: Mapping[Any, Any]) -> Interval:
    return Interval(float(row["rate"]), finite(row["low"]), finite(row["high"]), int(row["right"]), "words")


def _letter(row: Mapping[Any, Any], labels: Mapping[int, str]) -> Told:
    rate = _rate(row)
    mains = tuple((int(latent), labels.get(int(latent), "not labelled")) for latent in row["main_latents"])
    return Told(
        name=str(row["letter"]),
        meaning="",
        figure=number(rate.point, 2),
        interval=bounds(rate),
        whisker=whisker(rate, (), None),
        latents=mains,
        says=f"{row['absorbed']:,} of {plural(int(row['right']), 'word')} absorbed; a main latent fires on "
        f"{row['main_fires']:,}; probe F1 {number(row['probe_f1'], 2)}",
    )


def _ranked(told: list[tuple[Interval, Told]], *, best_is_high: bool) -> tuple[Told, ...]:
    return tuple(one for _, one in sorted(told, key=lambda pair: pair[0].point, reverse=best_is_high))


def _left_out(table: pd.DataFrame, column: str, why: str) -> str:
    missing = table.loc[~table["measured"].astype(bool), column].str.replace("_", " ").tolist()
    return f"Not measured ({why}): {', '.join(missing)}." if missing else ""


def _labels(contents: Contents) -> dict[int, str]:
    found = chosen_labels(contents.labels).set_index("latent")["text"].dropna()
    return dict(zip(found.index.astype(int).tolist(), found.astype(str), strict=True))
