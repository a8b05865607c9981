"""The story's own figures, as SVG text."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from saeops.stats import Interval

BLUE, GREY, WIDTH = "#1f5f8b", "#9a948a", 6.2


def before_and_after(before: Interval, after: Interval) -> str:
    """Cross-entropy of both versions."""
    return _intervals({"first version": before, "new version": after}, "cross-entropy, nats a token (95 %)")


def starts(warm: Interval, fresh: Interval) -> str:
    """Explained variance of a warm and a fresh start."""
    return _intervals({"from the champion": warm, "fresh": fresh}, "explained variance, held out (95 %)")


def outcomes(counts: Mapping[str, int]) -> str:
    """How many latents came to what."""
    names = list(counts)
    figure = Figure(figsize=(WIDTH, 0.5 + 0.34 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(names)), [counts[name] for name in names], color=BLUE)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.bar_label(axes.containers[0], fmt="{:,.0f}", padding=4, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("latents")
    axes.margins(x=0.12)
    return _svg(figure)


def history(entries: Sequence[Mapping[str, Any]]) -> str:
    """Who was champion after which operation."""
    order = list(dict.fromkeys(entry["to_digest"] for entry in entries))
    figure = Figure(figsize=(WIDTH, 0.9 + 0.45 * len(order)), layout="constrained")
    axes = figure.subplots()
    places = [order.index(entry["to_digest"]) for entry in entries]
    steps = range(1, len(entries) + 1)
    axes.step([*steps, len(entries) + 0.6], [*places, places[-1]], where="post", color=BLUE, linewidth=2.5)
    axes.plot(steps, places, "o", color=BLUE)
    for at, place, entry in zip(steps, places, entries, strict=True):
        axes.annotate(entry["action"], (at, place), xytext=(4, 7), textcoords="offset points", fontsize=9)
    axes.set_yticks(range(len(order)), [digest[:12] for digest in order])
    axes.set_xticks(list(steps))
    axes.set_xlabel("journal entry")
    axes.margins(y=0.4)
    return _svg(figure)


def _intervals(named: Mapping[str, Interval], label: str) -> str:
    figure = Figure(figsize=(WIDTH, 0.6 + 0.4 * len(named)), layout="constrained")
    axes = figure.subplots()
    for place, interval in enumerate(named.values()):
        if interval.low is not None and interval.high is not None:
            axes.plot([interval.low, interval.high], [place, place], color=GREY, linewidth=3)
        axes.plot(interval.point, place, "o", color=BLUE)
        axes.annotate(
            f"{interval.point:.3f}",
            (interval.point, place),
            xytext=(0, 7),
            textcoords="offset points",
            fontsize=9,
            ha="center",
        )
    axes.set_yticks(range(len(named)), list(named))
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.margins(y=0.4)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    out = io.StringIO()
    # Without a date, the same story gives the same page.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "story"}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
