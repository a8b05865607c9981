"""Metrics: what a reported figure is called, its unit, its formula, and which way is better.

Each room declares its own in a registry (`diagnostics/metrics.py`, `labelling/metrics.py`,
`interventions/metrics.py`, …). docs/metrics.md is normative, and a test compares the two.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from saeops.errors import FolderDamaged, NonFinite
from saeops.files import write_atomic
from saeops.stats import Interval

Better = Literal["higher", "lower", "none"]


@dataclass(frozen=True)
class Metric:
    """One figure's declaration."""

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


def registry(metrics: Iterable[Metric]) -> dict[str, Metric]:
    """Metrics by name; a name declared twice is our own mistake."""
    by_name: dict[str, Metric] = {}
    for metric in metrics:
        assert metric.name not in by_name, f"{metric.name} is declared twice"
        by_name[metric.name] = metric
    return by_name


def write_metrics(path: Path, metrics: Mapping[str, Interval]) -> None:
    """Write metrics.json: equal figures give equal bytes.

    Raises:
        NonFinite: a figure or a bound is NaN or infinite.
    """
    values = {name: interval.to_json() for name, interval in metrics.items()}
    try:
        text = json.dumps(values, indent=1, sort_keys=True, allow_nan=False)
    except ValueError as error:
        bad = [name for name, interval in metrics.items() if not _finite(interval)]
        raise NonFinite(
            f"{path.name}: {', '.join(bad)} is NaN or infinite",
            hint="the SAE or the model gave a value that is no number: look at its training curve",
        ) from error
    write_atomic(path, text.encode() + b"\n")


def read_metrics(path: Path) -> dict[str, Interval]:
    """Read metrics.json.

    Raises:
        FolderDamaged: absent, not JSON, or not intervals by name.
    """
    try:
        values = json.loads(path.read_bytes(), parse_constant=_refuse)
        return {name: Interval.from_json(value) for name, value in values.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise FolderDamaged(
            f"{path} does not hold metrics", hint=f"remove {path.parent} and run its stage again"
        ) from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no figure")


def _finite(interval: Interval) -> bool:
    try:
        json.dumps(interval.to_json(), allow_nan=False)
    except ValueError:
        return False
    return True
