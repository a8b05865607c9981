"""The table of metrics: every figure with its interval, its null, its gate, and where they lie on one axis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from saeops.metrics import Better, Metric
from saeops.promotion.policy import Gate
from saeops.report.numbers import count, number, short
from saeops.stats import Interval


@dataclass(frozen=True)
class Declared:
    """Metrics that answer one question, as their room declares them."""

    title: str
    question: str
    metrics: tuple[Metric[Any], ...]


@dataclass(frozen=True)
class Null:
    """What the same figure is where there is nothing to find."""

    metric: str
    what: str
    is_difference: bool = False
    """The metric named is figure − null; it keeps a row of its own."""


NULLS = {
    "label_confidence": Null("label_shuffled_confidence", "labels of other latents"),
    "steering_effect_nats": Null("steering_vs_random_nats", "random directions", is_difference=True),
    "ablation_effect_nats": Null("ablation_vs_random_nats", "random directions", is_difference=True),
    "panel_specificity_nats": Null("panel_specificity_vs_random_nats", "random directions", is_difference=True),
    "off_target_kl_nats": Null("off_target_kl_random_nats", "random directions"),
}
"""Nulls that are measured as figures of their own."""

NULL_TITLES = {
    "pca": "PCA of equal L0",
    "random_dictionary": "random dictionary",
    "random_model": "SAE of a random model",
    "shuffled": "shuffled",
    "random_directions": "random directions",
}
"""Names in nulls.json, as people read them; where there are several, they stand in this order."""


@dataclass(frozen=True)
class Rivals:
    """What every figure is shown beside."""

    nulls: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    """Null, then metric."""
    champion: Mapping[str, Interval] = field(default_factory=dict)
    """The champion's figures; empty where there is none, or this is it."""
    transcodes: bool = False
    """PCA between two sites is the best linear map of equal rank."""

    def title(self, null: str) -> str:
        """A null's name as people read it."""
        is_map = null == "pca" and self.transcodes
        return "linear map of equal rank" if is_map else NULL_TITLES.get(null, null.replace("_", " "))


ALONE = Rivals()


@dataclass(frozen=True)
class Beside:
    """One figure to compare with."""

    kind: Literal["null", "champion"]
    what: str
    interval: Interval


def beside(name: str, metrics: Mapping[str, Interval], rivals: Rivals) -> tuple[Beside, ...]:
    """The champion's figure, then the nulls', as far as they were measured."""
    found = [Beside("champion", "champion", rivals.champion[name])] if name in rivals.champion else []
    ranked = sorted(rivals.nulls, key=lambda null: ([*NULL_TITLES, null].index(null), null))
    measured = [(rivals.title(null), rivals.nulls[null].get(name)) for null in ranked]
    own = null_beside(name, metrics)
    measured += [(NULLS[name].what, own)] if own else []
    return tuple(found + [Beside("null", what, interval) for what, interval in measured if interval])


@dataclass(frozen=True)
class Ring:
    """A figure to compare with, placed on the axis."""

    kind: Literal["null", "champion"]
    point: float
    low: float | None
    high: float | None
    says: str


@dataclass(frozen=True)
class Whisker:
    """One axis, drawn: every position in per cent of its length."""

    point: float | None
    """None where nothing was sampled."""
    low: float | None
    high: float | None
    rings: tuple[Ring, ...]
    gate: float | None
    zero: float | None
    """Where 0 lies, when it is not the axis' start."""
    axis_low: str
    axis_high: str


@dataclass(frozen=True)
class Row:
    """One metric as the table shows it."""

    name: str
    title: str
    formula: str
    source: str
    unit: str
    better: str
    point: str
    interval: str
    n: str
    beside: tuple[tuple[str, str, str, str], ...]
    """Kind, what, figure and interval."""
    gate: str
    whisker: Whisker


@dataclass(frozen=True)
class Group:
    """Metrics that answer one question."""

    title: str
    question: str
    rows: tuple[Row, ...]


def groups(
    metrics: Mapping[str, Interval],
    declared: Sequence[Declared],
    gates: Sequence[Gate],
    rivals: Rivals = ALONE,
) -> tuple[Group, ...]:
    """All metrics, grouped as declared; what nobody declared comes last, so that nothing is left out."""
    ringed = {null.metric for name, null in NULLS.items() if name in metrics and not null.is_difference}
    known = {metric.name: metric for group in declared for metric in group.metrics}
    strays = sorted(metrics.keys() - known)
    asked = {gate.metric: gate for gate in gates if _has_limit(gate)}

    def rows(metrics_of: Sequence[Metric[Any]]) -> tuple[Row, ...]:
        shown = (m for m in metrics_of if m.name in metrics and m.name not in ringed)
        return tuple(row(m.name, metrics, asked.get(m.name), rivals, Words.of(m)) for m in shown)

    made = [Group(group.title, group.question, rows(group.metrics)) for group in declared]
    made.append(Group("Other", "", tuple(row(name, metrics, asked.get(name), rivals) for name in strays)))
    return tuple(group for group in made if group.rows)


def _has_limit(gate: Gate) -> bool:
    """It asks a number of the figure itself, which then has a place on the axis."""
    return gate.slice is None and not gate.dry_run and (gate.at_least, gate.at_most) != (None, None)


@dataclass(frozen=True)
class Words:
    """What a metric's declaration says of it."""

    unit: str = "1"
    better: Better = "none"
    formula: str = "declared nowhere"
    source: str = "unknown"

    @classmethod
    def of(cls, metric: Metric[Any]) -> "Words":
        return cls(metric.unit, metric.better, metric.formula, metric.source)


UNDECLARED = Words()


def row(
    name: str,
    metrics: Mapping[str, Interval],
    gate: Gate | None,
    rivals: Rivals = ALONE,
    words: Words = UNDECLARED,
) -> Row:
    """One metric's row."""
    interval = metrics[name]
    found = beside(name, metrics, rivals)
    limit = None if gate is None else gate.at_least if gate.at_least is not None else gate.at_most
    return Row(
        name=name,
        title=title_of(name),
        formula=words.formula,
        source=words.source,
        unit="" if words.unit == "1" else words.unit,
        better=words.better,
        point=number(interval.point) if interval.n else "–",
        interval=bounds(interval),
        n=f"{count(interval.n)} {interval.unit}",
        beside=tuple((one.kind, one.what, number(one.interval.point), bounds(one.interval)) for one in found),
        gate="" if limit is None else ("≥ " if gate and gate.at_least is not None else "≤ ") + number(limit),
        whisker=whisker(interval, found, limit, is_share=words.unit == "1"),
    )


def null_beside(name: str, metrics: Mapping[str, Interval]) -> Interval | None:
    """The null of a figure, where it has one and that was measured."""
    null, interval = NULLS.get(name), metrics.get(name)
    found = metrics.get(null.metric) if null else None
    if null is None or interval is None or found is None or not null.is_difference:
        return found
    # A mean of paired differences is the difference of the means; its interval says nothing of the null's own.
    return Interval(interval.point - found.point, None, None, found.n, found.unit)


def bounds(interval: Interval) -> str:
    """`0.81 to 0.84`, or why there are none."""
    if interval.n == 0:
        return "nothing to measure yet"
    if interval.low is None or interval.high is None:
        return f"no interval: {interval.note}" if interval.note else "no interval"
    return f"{number(interval.low)} to {number(interval.high)}"


def title_of(name: str) -> str:
    """A metric's name as words: `delta_ce_nats` → `ΔCE`."""
    if name in _TITLES:
        return _TITLES[name]
    plain = name.removesuffix("_nats").replace("delta_ce", "ΔCE").replace("off_target", "off-target")
    words = [_WORDS.get(word, word) for word in plain.split("_")]
    return words[0][:1].upper() + words[0][1:] + "".join(f" {word}" for word in words[1:])


_TITLES = {
    "l0_p05": "L0, 5 % quantile",
    "l0_p50": "L0, median",
    "l0_p95": "L0, 95 % quantile",
    "ce_recovered_zero": "CE recovered, zero-ablation",
    "ce_recovered_mean": "CE recovered, mean-ablation",
    "max_cosine": "Nearest other decoder row, cosine",
    "seed_cosine": "Nearest in other seeds, cosine",
    "label_shuffled_confidence": "Label confidence, shuffled",
    "dose_response_rho": "Dose–response ρ",
    "target_logprob": "Log-prob of its own tokens",
    "target_logprob_vs_own": "Log-prob, each direction’s own tokens",
    "activations_md5": "Activations, as DVC calls them",
    "code": "Code, sha256 of its sources",
    "lock": "requirements.lock, sha256",
    "version": "saeops",
}
_WORDS = {word.lower(): word for word in ("CE", "KL", "TPR", "TNR", "PCA", "L0", "MSE", "LLM", "DVC", "BOS")}


def whisker(interval: Interval, found: Sequence[Beside], gate: float | None, *, is_share: bool = True) -> Whisker:
    """Place a figure, its bounds, what it is compared with and its gate on one axis, from 0 where it can."""
    shown = [interval.point, interval.low, interval.high, gate]
    shown += [end for one in found for end in (one.interval.point, one.interval.low, one.interval.high)]
    values = [value for value in shown if value is not None]
    low, high = min(0.0, *values), max(0.0, *values)
    if is_share and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    else:
        low, high = low * 1.15, high * 1.15
    if high == low:
        high = low + 1.0

    def at(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    def place(value: float | None) -> float | None:
        return None if value is None else at(value)

    def ring(one: Beside) -> Ring:
        ends = one.interval
        says = f"{one.what}: {number(ends.point)}, {bounds(ends)}"
        return Ring(one.kind, at(ends.point), place(ends.low), place(ends.high), says)

    return Whisker(
        point=place(interval.point if interval.n else None),
        low=place(interval.low),
        high=place(interval.high),
        rings=tuple(ring(one) for one in found),
        gate=place(gate),
        zero=place(0.0) if low < 0 else None,
        axis_low=short(low),
        axis_high=short(high),
    )
