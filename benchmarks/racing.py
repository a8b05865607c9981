"""Timing on a machine that others use too: interleaved rounds, and samples in which others were busy left out.

All times are wall seconds; the share of foreign work comes from /proc/stat less this process's own CPU time.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TICKS = os.sysconf("SC_CLK_TCK")
STAT = Path("/proc/stat")


@dataclass(frozen=True)
class Sample:
    """One measurement of one contender in one round."""

    seconds: float
    """Per call."""
    foreign: float
    """Share of the machine's CPU time that other processes used meanwhile."""


@dataclass(frozen=True)
class Timing:
    """What a contender's clean samples say."""

    median: float
    low: float
    high: float
    """Least and largest clean sample."""
    clean: int
    samples: int
    quiet: bool
    """False where too few samples were clean, and the least disturbed stand in for them."""

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Ratio:
    """How many times faster, over rounds in which both were measured cleanly."""

    median: float
    low: float
    high: float
    """Bounds of a 95 % bootstrap of the median over the rounds."""
    rounds: int

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


Turn = Callable[[int], Sample]
"""Runs a contender's step so many times, and measures it."""


def race(
    turns: Mapping[str, Turn],
    *,
    rounds: int,
    most_rounds: int,
    tolerance: float = 0.04,
    least_seconds: float = 0.4,
) -> dict[str, list[Sample]]:
    """All in turn, round after round, until each has `rounds` clean samples or `most_rounds` are over.

    Every round measures everybody, so that sample r of one pairs with sample r of another.

    Args:
        tolerance: largest foreign share of a clean sample.
        least_seconds: a sample repeats the step until it lasts about that long.
    """
    repeats = {}
    for name, turn in turns.items():
        turn(1)
        repeats[name] = max(1, round(least_seconds / max(turn(1).seconds, 1e-9)))
    samples: dict[str, list[Sample]] = {name: [] for name in turns}
    for _ in range(most_rounds):
        for name, turn in turns.items():
            samples[name].append(turn(repeats[name]))
        if all(sum(clean(sample, tolerance) for sample in of) >= rounds for of in samples.values()):
            break
    return samples


class Stopwatch:
    """Running from when it is made."""

    def __init__(self) -> None:
        self._busy, self._own, self._start = _busy(), _own(), time.perf_counter()

    def sample(self, calls: int = 1) -> Sample:
        """What so many calls took, each."""
        seconds = time.perf_counter() - self._start
        foreign = (_busy() - self._busy) - (_own() - self._own)
        return Sample(seconds / calls, max(0.0, foreign / (seconds * (os.cpu_count() or 1))))


def timed(runner: Callable[[], None], repeats: int) -> Sample:
    """Call it `repeats` times."""
    watch = Stopwatch()
    for _ in range(repeats):
        runner()
    return watch.sample(repeats)


def clean(sample: Sample, tolerance: float) -> bool:
    """Whether others left the machine alone."""
    return sample.foreign <= tolerance


def timing(samples: Sequence[Sample], *, tolerance: float) -> Timing:
    """Median and range of the clean samples; of the least disturbed third where fewer than two are clean."""
    good = [sample.seconds for sample in samples if clean(sample, tolerance)]
    quiet = len(good) >= 2
    if not quiet:
        calmest = sorted(samples, key=lambda sample: sample.foreign)
        good_enough = calmest[: max(2, len(samples) // 3)]
        used = [sample.seconds for sample in good_enough]
    else:
        used = good
    return Timing(float(np.median(used)), min(used), max(used), len(good), len(samples), quiet)


def ratio(ours: Sequence[Sample], theirs: Sequence[Sample], *, tolerance: float, seed: int = 0) -> Ratio | None:
    """Their time over ours, paired by round; None where no round was clean for both."""
    pairs = [
        their.seconds / our.seconds
        for our, their in zip(ours, theirs, strict=True)
        if clean(our, tolerance) and clean(their, tolerance)
    ]
    if not pairs:
        return None
    values = np.array(pairs)
    draws = np.random.default_rng(seed).integers(len(values), size=(2000, len(values)))
    low, high = np.quantile(np.median(values[draws], axis=1), [0.025, 0.975])
    return Ratio(float(np.median(values)), float(low), float(high), len(values))


def _busy() -> float:
    # user nice system idle iowait irq softirq steal
    fields = [int(field) for field in STAT.read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / TICKS


def _own() -> float:
    times = os.times()
    return times.user + times.system
