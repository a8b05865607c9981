"""Metrics: what a reported figure is called, its unit, its formula, and which way is better.

Each room declares its own in a registry (`diagnostics/metrics.py`, `labelling/metrics.py`,
`interventions/metrics.py`, …). docs/metrics.md is normative, and a test compares the two.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from saeops.errors import FolderDamaged, NonFinite
from saeops.files import write_atomic
from saeops.stats import Bootstrap, Interval

Better = Literal["higher", "lower", "none"]


T = TypeVar("T")


@dataclass(frozen=True)
class Metric(Generic[T]):
    """One figure's declaration: what it is called, what it means, and how it is measured."""

    name: str
    """The key in metrics.json and in promotion gates."""
    unit: str
    """`nats`, `1` for a pure number, `activation²`, …"""
    better: Better
    """Which way is better; `none` for a figure that only describes."""
    formula: str
    """One line, as docs/metrics.md gives it."""
    source: str
    """Where the definition comes from: a paper, or `saeops` for our own."""
    range: str
    """The values it can take, as docs/metrics.md gives it: `[0, 1]`, `(−∞, 1]`, …"""
    measure: Callable[[T, Bootstrap], Interval]
    """The figure with its interval, from the evidence that its group is measured on."""

    def within(self, interval: Interval) -> Interval:
        """The interval without what lies outside the metric's range: no value there can be the truth."""
        if interval.low is None or interval.high is None:
            return interval
        least, most = (_end(text) for text in self.range[1:-1].split(", "))
        low, high = (min(max(bound, least), most) for bound in (interval.low, interval.high))
        return replace(interval, low=low, high=high)


def measure_all(metrics: Iterable[Metric[T]], evidence: T, draw: Bootstrap) -> dict[str, Interval]:
    """Every figure of a group, by name."""
    return {metric.name: metric.within(metric.measure(evidence, draw)) for metric in metrics}


def _end(text: str) -> float:
    """`−∞`, `0`, `1`; what depends on the dictionary, such as `d_sae`, bounds nothing here."""
    try:
        return float(text.replace("−", "-").replace("∞", "inf"))
    except ValueError:
        return math.inf


def registry(metrics: Iterable[Metric[Any]]) -> dict[str, Metric[Any]]:
    """Metrics by name; a name declared twice is our own mistake."""
    by_name: dict[str, Metric[Any]] = {}
    for metric in metrics:
        assert metric.name not in by_name, f"{metric.name} is declared twice"
        by_name[metric.name] = metric
    return by_name


Nulls = Mapping[str, Mapping[str, Interval]]
"""Null → metric → what the figure is where there is nothing to find."""


def write_metrics(path: Path, metrics: Mapping[str, Interval]) -> None:
    """Write metrics.json: equal figures give equal bytes.

    Raises:
        NonFinite: a figure or a bound is NaN or infinite.
    """
    _check_finite(path, metrics)
    _write(path, {name: interval.to_json() for name, interval in metrics.items()})


def read_metrics(path: Path) -> dict[str, Interval]:
    """Read metrics.json.

    Raises:
        FolderDamaged: absent, not JSON, or not intervals by name.
    """
    with _explained(path):
        return {name: Interval.from_json(value) for name, value in _read(path).items()}


def write_nulls(path: Path, nulls: Nulls) -> None:
    """Write nulls.json: equal figures give equal bytes.

    Raises:
        NonFinite: a figure or a bound is NaN or infinite.
    """
    for null, metrics in nulls.items():
        _check_finite(path, {f"{null}.{name}": interval for name, interval in metrics.items()})
    _write(path, {null: {name: i.to_json() for name, i in metrics.items()} for null, metrics in nulls.items()})


def read_nulls(path: Path) -> dict[str, dict[str, Interval]]:
    """Read nulls.json.

    Raises:
        FolderDamaged: absent, not JSON, or not intervals by null and name.
    """
    with _explained(path):
        return {
            null: {name: Interval.from_json(value) for name, value in metrics.items()}
            for null, metrics in _read(path).items()
        }


def _write(path: Path, values: Mapping[str, Any]) -> None:
    write_atomic(path, json.dumps(values, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n")


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_bytes(), parse_constant=_refuse)
    return found


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise FolderDamaged(
            f"{path} does not hold metrics", hint=f"remove {path.parent} and run its stage again"
        ) from error


def _check_finite(path: Path, metrics: Mapping[str, Interval]) -> None:
    bad = [name for name, interval in metrics.items() if not _finite(interval)]
    if bad:
        raise NonFinite(
            f"{path.name}: {', '.join(bad)} is NaN or infinite",
            hint="the SAE or the model gave a value that is no number: look at its training curve",
        )


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no figure")


def _finite(interval: Interval) -> bool:
    try:
        json.dumps(interval.to_json(), allow_nan=False)
    except ValueError:
        return False
    return True
