"""Two dictionaries side by side: every figure of both, their difference, and which differences are real.

Figures that are ratios of sums over documents are compared on the documents
that both were measured on, pair by pair. All others are compared by their
intervals alone, which is less sharp, and marked as unpaired.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import pandas as pd

from saeops.activations.policy import TokenPolicy
from saeops.activations.sites import Sites
from saeops.diagnostics.metrics import BY_DOCUMENT, RECONSTRUCTION
from saeops.diagnostics.metrics import METRICS as DIAGNOSTICS
from saeops.diagnostics.ratios import Ratio
from saeops.errors import NotComparable
from saeops.interventions.metrics import METRICS as EFFECTS
from saeops.labelling.metrics import METRICS as LABELS
from saeops.metrics import Better, Metric
from saeops.stats import MIN_UNITS, Bootstrap, Interval, UnitSums, difference_interval, unpaired_difference

Outcome = Literal["better", "worse", "no difference shown", "not judged"]

FAMILY_ERROR = 0.05
"""Chance that two equal dictionaries differ anywhere: shared among the judged figures (Bonferroni)."""
RESAMPLES = 10_000
"""Shared so, a tail holds a thousandth of the resamples: fewer of them would not find it."""

METRICS: Mapping[str, Metric[Any]] = {**DIAGNOSTICS, **LABELS, **EFFECTS}


@dataclass(frozen=True)
class Measured:
    """What a comparison sees of a bundle."""

    name: str
    digest: str
    model: str
    """Digest of the language model."""
    policy: TokenPolicy
    sites: Sites
    metrics: Mapping[str, Interval]
    documents: pd.DataFrame | None
    """EvalDocumentTable; None where an older saeops kept none."""


@dataclass(frozen=True)
class Difference:
    """One figure of both."""

    metric: str
    unit: str
    better: Better
    first: Interval
    """A's, on the shared documents where it is paired, else as A reports it."""
    second: Interval
    difference: Interval
    """B − A, at the comparison's level."""
    paired: bool
    outcome: Outcome
    """Of B beside A."""


@dataclass(frozen=True)
class Comparison:
    """B beside A."""

    first: str
    """A: `name digest`."""
    second: str
    shared_documents: int
    judged: int
    """Figures that share the family's error."""
    level: float
    """Of each difference's interval."""
    cautions: tuple[str, ...]
    """What keeps it from being a comparison of like with like."""
    figures: tuple[Difference, ...]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "family_error": FAMILY_ERROR}

    def outcomes(self, outcome: Outcome) -> list[str]:
        """The figures of which this is said."""
        return [figure.metric for figure in self.figures if figure.outcome == outcome]


def compare(first: Measured, second: Measured, draw: Bootstrap) -> Comparison:
    """B (`second`) beside A (`first`), each difference at a level that holds for all judged figures together.

    Raises:
        NotComparable: they were measured on other models or under other token policies.
    """
    _refuse_unlike(first, second)
    documents = _shared(first.documents, second.documents)
    unlike = {metric.name for metric in RECONSTRUCTION} if first.sites != second.sites else set()
    pairs = {metric.name: metric for metric in BY_DOCUMENT if _enough(metric, documents)}
    both = [
        METRICS[name] for name in METRICS if name in pairs or (name in first.metrics and name in second.metrics)
    ]
    judged = sum(metric.better != "none" and metric.name not in unlike for metric in both)
    level = 1 - FAMILY_ERROR / max(judged, 1)
    figures = []
    for metric in both:
        if metric.name in pairs:
            figure = _paired(metric, documents, draw, level=level)
        else:
            figure = _unpaired(metric, first.metrics[metric.name], second.metrics[metric.name], level=level)
        figures.append(replace(figure, outcome="not judged") if metric.name in unlike else figure)
    return Comparison(
        _called(first),
        _called(second),
        len(documents[0]),
        judged,
        level,
        _cautions(first, second, documents),
        tuple(figures),
    )


def paired_difference(
    name: str, first: pd.DataFrame | None, second: pd.DataFrame | None, draw: Bootstrap, *, level: float
) -> Interval | None:
    """B − A of one figure on the documents of both, by what `documents` holds of A (`first`) and B.

    None where the figure is no ratio of sums over documents, or too few are shared.
    """
    metric = next((metric for metric in BY_DOCUMENT if metric.name == name), None)
    documents = _shared(first, second)
    if metric is None or not _enough(metric, documents):
        return None
    return _paired(metric, documents, draw, level=level).difference


def _refuse_unlike(first: Measured, second: Measured) -> None:
    if first.model != second.model:
        raise NotComparable(
            f"{_called(first)} was measured on model {first.model[:12]}, {_called(second)} on {second.model[:12]}",
            hint="compare dictionaries of one model: figures of two models say nothing of the dictionaries",
        )
    if first.policy != second.policy:
        ours, theirs = first.policy.model_dump(), second.policy.model_dump()
        apart = ", ".join(f"{key} {ours[key]} and {theirs[key]}" for key in ours if ours[key] != theirs[key])
        raise NotComparable(
            f"{_called(first)} and {_called(second)} count other tokens: {apart}",
            hint="harvest and diagnose both under one harvest.policy",
        )


Pair = tuple[pd.DataFrame, pd.DataFrame]


def _shared(first: pd.DataFrame | None, second: pd.DataFrame | None) -> Pair:
    """The documents of both, in one order, whatever numbers they have on either side."""
    if first is None or second is None:
        return pd.DataFrame({"sha256": []}), pd.DataFrame({"sha256": []})
    names = sorted(set(first["sha256"]) & set(second["sha256"]))
    ours, theirs = (table.set_index("sha256").loc[names].reset_index() for table in (first, second))
    return ours, theirs


def _enough(metric: Metric[pd.DataFrame], documents: Pair) -> bool:
    return len(documents[0]) > 0 and len(_taking_part(_ratio(metric), documents)[0]) >= MIN_UNITS


def _ratio(metric: Metric[pd.DataFrame]) -> Ratio:
    assert isinstance(metric.measure, Ratio), f"{metric.name} is no ratio of sums over documents"
    return metric.measure


def _taking_part(ratio: Ratio, documents: Pair) -> Pair:
    first, second = documents
    kept = (first[ratio.counted] > 0) & (second[ratio.counted] > 0)
    return first[kept], second[kept]


def _paired(metric: Metric[pd.DataFrame], documents: Pair, draw: Bootstrap, *, level: float) -> Difference:
    ratio = _ratio(metric)
    first, second = _taking_part(ratio, documents)
    difference = difference_interval(
        UnitSums(*ratio.parts(second)),
        UnitSums(*ratio.parts(first)),
        resamples=draw.resamples,
        seed=draw.seed,
        level=level,
    )
    ours, theirs = (metric.within(metric.measure(side, draw)) for side in (first, second))
    return _figure(metric, ours, theirs, difference, paired=True)


def _unpaired(metric: Metric[Any], first: Interval, second: Interval, *, level: float) -> Difference:
    return _figure(metric, first, second, unpaired_difference(second, first, level=level), paired=False)


def _figure(
    metric: Metric[Any], first: Interval, second: Interval, difference: Interval, *, paired: bool
) -> Difference:
    outcome = _outcome(metric.better, difference)
    return Difference(metric.name, metric.unit, metric.better, first, second, difference, paired, outcome)


def _outcome(better: Better, difference: Interval) -> Outcome:
    if better == "none" or difference.low is None or difference.high is None:
        return "not judged"
    if difference.low <= 0 <= difference.high:
        return "no difference shown"
    return "better" if (difference.low > 0) == (better == "higher") else "worse"


def _cautions(first: Measured, second: Measured, documents: Pair) -> tuple[str, ...]:
    said = []
    old = [_called(side) for side in (first, second) if side.documents is None]
    if old:
        said.append(
            f"{' and '.join(old)}: diagnosed by an older saeops, without sums by document; nothing is paired"
        )
    elif len(documents[0]) < MIN_UNITS:
        said.append(f"{len(documents[0])} documents are shared, fewer than {MIN_UNITS}: nothing is paired")
    if first.sites != second.sites:
        said.append(f"{first.sites} and {second.sites} are other activations: reconstruction is not judged")
    if len(documents[0]):
        apart = int((documents[0]["tokens"] != documents[1]["tokens"]).sum())
        if apart:
            said.append(f"{apart} of {len(documents[0])} shared documents count more tokens on one side")
    return tuple(said)


def _called(side: Measured) -> str:
    return f"{side.name} {side.digest[:12]}"
