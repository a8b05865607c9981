"""Figures as plain geometry; `macros.jinja` draws them, so they stay crisp and follow the page's colours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from saeops.report.numbers import number
from saeops.stats import Interval

WIDTH, HEIGHT = 340.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 36.0, 10.0, 10.0, 38.0

CURVE_POINTS = 200
"""Readings of a curve at most."""
PROFILE_LETTERS = 44
"""Letters of bucket names that fit under a figure."""

Array = np.ndarray
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Tick:
    """A mark on an axis, in pixels, with its text."""

    at: float
    text: str


@dataclass(frozen=True)
class Bar:
    """One bin of a histogram, in pixels."""

    x: float
    y: float
    width: float
    height: float
    says: str
    low: float
    """Where the bin begins, on the chart's axis."""
    high: float


@dataclass(frozen=True)
class Axis:
    """What a histogram counts, so that a reader can pick a range of it."""

    column: str
    """Name of the column in the page's index."""
    low: float
    high: float
    is_log: bool
    """`low`, `high` and the bins are log10 of the values."""


@dataclass(frozen=True)
class Point:
    """A place on a curve, in pixels, with its reading."""

    x: float
    y: float
    says: str


@dataclass(frozen=True)
class Mark:
    """A point with its interval, in pixels."""

    x: float
    y: float
    low: float | None
    high: float | None
    is_null: bool
    says: str


@dataclass(frozen=True)
class Dose:
    """An effect at one strength, and that of random directions."""

    strength: float
    effect: Interval
    control: Interval


@dataclass(frozen=True)
class Chart:
    """One figure, ready to draw."""

    title: str
    says: str
    """What the figure shows, in a sentence, for readers and screen readers."""
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    bars: tuple[Bar, ...] = ()
    axis: Axis | None = None
    """Of a histogram whose bars filter the feature browser."""
    path: str = ""
    """A curve's SVG path."""
    null_path: str = ""
    """The curve of what it is compared with."""
    points: tuple[Point, ...] = ()
    """Of a curve, for who reads it off with a pointer."""
    marks: tuple[Mark, ...] = ()
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    floor: float = HEIGHT - BOTTOM
    """Where the horizontal axis lies."""


@dataclass(frozen=True)
class Scale:
    """Values to pixels, in a straight line."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def nice_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round values inside [low, high], about `wanted` of them, 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / max(wanted, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((power * factor for factor in (1, 2, 5, 10)), key=lambda step: abs(math.log(step / rough)))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def histogram(
    values: Float[Array, " latent"],
    *,
    title: str,
    says: str,
    x_label: str,
    y_label: str = "latents",
    bins: int = 28,
    log10: bool = False,
    limits: tuple[float, float] | None = None,
    column: str = "",
) -> Chart | None:
    """A histogram, or None where there is nothing to count.

    Args:
        values: what is counted; with `log10`, only the positive ones are.
        limits: the axis, where it is known beforehand.
        column: the index's column of the same values, whose ranges a reader may pick.
    """
    values = np.log10(values[values > 0]) if log10 else values
    if values.size == 0:
        return None
    low, high = limits or (float(values.min()), float(values.max()))
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(values, bins=bins, range=(low, high))
    x, y = _scales((low, high), (0.0, float(counts.max()) * 1.05))
    text = _raised if log10 else number
    bars = tuple(
        Bar(
            x=x(left) + 0.5,
            y=y(height),
            width=x(right) - x(left) - 1,
            height=y(0) - y(height),
            says=f"{text(left)} to {text(right)}: {height} {y_label}",
            low=left,
            high=right,
        )
        for left, right, height in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)
        if height
    )
    x_ticks = _log_ticks(x) if log10 else _ticks(x)
    axis = Axis(column, low, high, log10) if column else None
    return Chart(title, says, x_label, y_label, x_ticks, _ticks(y, 4, whole=True), bars=bars, axis=axis)


def curve(
    xs: Sequence[float], ys: Sequence[float], *, title: str, says: str, x_label: str, y_label: str
) -> Chart | None:
    """A line over training, or None where fewer than two points are known."""
    points = [(a, b) for a, b in zip(xs, ys, strict=True) if math.isfinite(b)]
    if len(points) < 2:
        return None
    heights = [b for _, b in points]
    low, high = min(heights), max(heights)
    slack = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    floor = 0.0 if low == 0 or 0 < low < 0.5 * high else low - slack
    x, y = _scales((points[0][0], points[-1][0]), (floor, high + slack))
    path = "M" + "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in points)
    step = max(1, len(points) // CURVE_POINTS)
    read = tuple(Point(x(a), y(b), f"{_short(a)} {x_label}: {number(b)}") for a, b in points[::step])
    return Chart(title, says, x_label, y_label, _ticks(x, 4), _ticks(y, 4), path=path, points=read)


def profile(
    buckets: Sequence[tuple[str, Interval]], *, title: str, says: str, x_label: str, y_label: str
) -> Chart | None:
    """A figure with its interval in each bucket, in their order; None where fewer than two are known."""
    if len(buckets) < 2:
        return None
    ends = [end for _, i in buckets for end in (i.point, i.low, i.high) if end is not None]
    slack = (max(ends) - min(ends)) * 0.06 or 1.0
    x, y = _scales((-0.5, len(buckets) - 0.5), (min(ends) - slack, max(ends) + slack))
    marks = tuple(
        Mark(
            x(place),
            y(interval.point),
            None if interval.low is None else y(interval.low),
            None if interval.high is None else y(interval.high),
            is_null=False,
            says=f"{name}: {interval}",
        )
        for place, (name, interval) in enumerate(buckets)
    )
    path = "M" + "L".join(f"{mark.x:.1f} {mark.y:.1f}" for mark in marks)
    step = math.ceil(len(buckets) * max(len(name) for name, _ in buckets) / PROFILE_LETTERS)
    ticks = tuple(Tick(x(place), name) for place, (name, _) in enumerate(buckets) if place % step == 0)
    return Chart(title, says, x_label, y_label, ticks, _ticks(y, 4), path=path, marks=marks)


def dose_response(doses: Sequence[Dose], *, title: str, y_label: str) -> Chart | None:
    """Effect over strength with its interval, beside random directions; None where nothing was measured.

    Both start at 0: no dose, no effect.
    """
    if not doses:
        return None
    ends = [end for dose in doses for i in (dose.effect, dose.control) for end in (i.point, i.low, i.high)]
    known = [0.0, *(end for end in ends if end is not None)]
    slack = (max(known) - min(known)) * 0.06 or 1.0
    x, y = _scales((0.0, doses[-1].strength * 1.06), (min(known) - slack, max(known) + slack))
    effects = tuple(_mark(dose.strength, dose.effect, x, y, is_null=False) for dose in doses)
    controls = tuple(_mark(dose.strength, dose.control, x, y, is_null=True) for dose in doses)
    last = doses[-1]
    return Chart(
        title,
        f"At {last.strength:g}: {number(last.effect.point)}; random directions {number(last.control.point)}.",
        "strength, in units of its maximum activation",
        y_label,
        tuple(Tick(x(dose.strength), f"{dose.strength:g}") for dose in doses),
        _ticks(y, 4),
        path=_joined(effects, x, y),
        null_path=_joined(controls, x, y),
        marks=controls + effects,
    )


def _mark(strength: float, interval: Interval, x: Scale, y: Scale, *, is_null: bool) -> Mark:
    low, high = interval.low, interval.high
    who = "random directions" if is_null else "this latent"
    return Mark(
        x(strength),
        y(interval.point),
        None if low is None else y(low),
        None if high is None else y(high),
        is_null,
        f"{who} at {strength:g}: {interval}",
    )


def _joined(marks: Sequence[Mark], x: Scale, y: Scale) -> str:
    return f"M{x(0):.1f} {y(0):.1f}" + "".join(f"L{mark.x:.1f} {mark.y:.1f}" for mark in marks)


def _scales(x: tuple[float, float], y: tuple[float, float]) -> tuple[Scale, Scale]:
    return Scale(*x, LEFT, WIDTH - RIGHT), Scale(*y, HEIGHT - BOTTOM, TOP)


def _ticks(scale: Scale, wanted: int = 5, *, whole: bool = False) -> tuple[Tick, ...]:
    values = nice_ticks(scale.low, scale.high, wanted)
    return tuple(Tick(scale(value), _short(value)) for value in values if not whole or value == round(value))


def _log_ticks(scale: Scale) -> tuple[Tick, ...]:
    """Powers of ten; on a short axis plain numbers, with 2 and 5 between."""
    is_short = scale.high - scale.low < 1.5
    powers = range(math.floor(scale.low), math.ceil(scale.high) + 1)
    values = [math.log10(factor) + power for power in powers for factor in ((1, 2, 5) if is_short else (1,))]
    text = _raised if is_short else _power
    return tuple(Tick(scale(value), text(value)) for value in values if scale.low <= value <= scale.high)


def _power(value: float) -> str:
    """A whole power of ten as people write it."""
    return "1" if value == 0 else "10" + str(round(value)).translate(_SUPERSCRIPT)


def _raised(value: float) -> str:
    """10 to this power, as a plain number."""
    return _short(float(f"{10**value:.2g}"))


def _short(value: float) -> str:
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}".replace("-", "−")
