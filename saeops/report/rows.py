"""The table of metrics: every figure with its interval, its null, its gate, and where they lie on one axis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saeops.metrics import Metric
from saeops.promotion.policy import Gate
from saeops.report.numbers import count, number, short
from saeops.sae.canonical import SaeMeta
from saeops.stats import Interval


@dataclass(frozen=True)
class Declared:
    """Metrics that answer one question, as their room declares them."""

    title: str
    question: str
    metrics: tuple[Metric, ...]


@dataclass(frozen=True)
class Null:
    """What the same figure is where there is nothing to find."""

    metric: str
    what: str
    is_difference: bool = False
    """The metric named is figure − null; it keeps a row of its own."""


NULLS = {
    "explained_variance": Null("pca_explained_variance", "PCA of equal size"),
    "label_confidence": Null("label_shuffled_confidence", "labels of other latents"),
    "steering_effect_nats": Null("steering_vs_random_nats", "random directions", is_difference=True),
    "ablation_effect_nats": Null("ablation_vs_random_nats", "random directions", is_difference=True),
    "panel_specificity_nats": Null("panel_specificity_vs_random_nats", "random directions", is_difference=True),
    "off_target_kl_nats": Null("off_target_kl_random_nats", "random directions"),
}


def nulls_of(meta: SaeMeta) -> Mapping[str, Null]:
    """What stands beside which figure; PCA between two sites is the best linear map."""
    linear = Null("pca_explained_variance", "linear map of equal rank")
    return {**NULLS, "explained_variance": linear} if meta.sites.transcodes else NULLS


@dataclass(frozen=True)
class Whisker:
    """One axis, drawn: every position in per cent of its length."""

    point: float | None
    """None where nothing was sampled."""
    low: float | None
    high: float | None
    null: float | None
    null_low: float | None
    null_high: float | None
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
    null: str
    null_point: str
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
    nulls: Mapping[str, Null] = NULLS,
) -> tuple[Group, ...]:
    """All metrics, grouped as declared; what nobody declared comes last, so that nothing is left out."""
    beside = {null.metric for name, null in nulls.items() if name in metrics and not null.is_difference}
    known = {metric.name for group in declared for metric in group.metrics}
    strays = tuple(_undeclared(name) for name in sorted(metrics.keys() - known))
    asked = {gate.metric: gate for gate in gates}
    made = (
        Group(
            group.title,
            group.question,
            tuple(
                row(metric, metrics, asked.get(metric.name), nulls)
                for metric in group.metrics
                if metric.name in metrics and metric.name not in beside
            ),
        )
        for group in (*declared, Declared("Other", "", strays))
    )
    return tuple(group for group in made if group.rows)


def row(
    metric: Metric, metrics: Mapping[str, Interval], gate: Gate | None, nulls: Mapping[str, Null] = NULLS
) -> Row:
    """One metric's row."""
    interval = metrics[metric.name]
    null = nulls.get(metric.name)
    beside = null_beside(metric.name, metrics)
    limit = None if gate is None else gate.at_least if gate.at_least is not None else gate.at_most
    return Row(
        name=metric.name,
        title=title_of(metric.name),
        formula=metric.formula,
        source=metric.source,
        unit="" if metric.unit == "1" else metric.unit,
        better=metric.better,
        point=number(interval.point) if interval.n else "–",
        interval=bounds(interval),
        n=f"{count(interval.n)} {interval.unit}",
        null=null.what if null and beside else "",
        null_point=number(beside.point) if beside else "",
        gate="" if limit is None else ("≥ " if gate and gate.at_least is not None else "≤ ") + number(limit),
        whisker=whisker(interval, beside, limit, is_share=metric.unit == "1"),
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


def whisker(interval: Interval, null: Interval | None, gate: float | None, *, is_share: bool = True) -> Whisker:
    """Place a figure, its bounds, its null and its gate on one axis that starts at 0 where it can."""
    shown = [interval.point, interval.low, interval.high, gate]
    shown += [null.point, null.low, null.high] if null else []
    values = [value for value in shown if value is not None]
    low, high = min(0.0, *values), max(0.0, *values)
    if is_share and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    else:
        low, high = low * 1.15, high * 1.15
    if high == low:
        high = low + 1.0

    def place(value: float | None) -> float | None:
        return None if value is None else round(100 * (value - low) / (high - low), 2)

    return Whisker(
        point=place(interval.point if interval.n else None),
        low=place(interval.low),
        high=place(interval.high),
        null=place(null.point) if null else None,
        null_low=place(null.low) if null else None,
        null_high=place(null.high) if null else None,
        gate=place(gate),
        zero=place(0.0) if low < 0 else None,
        axis_low=short(low),
        axis_high=short(high),
    )


def _undeclared(name: str) -> Metric:
    return Metric(name, "1", "none", "declared nowhere", "unknown")
