"""What a person sees on the terminal at the end of a build: what was made, how good, the verdict, what to type."""

from collections.abc import Mapping
from pathlib import Path

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from saeops.promotion.verdict import Verdict
from saeops.report.contents import Contents
from saeops.report.numbers import count, number
from saeops.report.page import Choices, headline, measure_coverage, rivals_of
from saeops.report.rows import Rivals, beside, bounds, title_of
from saeops.report.ruling import Ruling, ruling
from saeops.report.sampling import Coverage
from saeops.review.outcome import ReviewOutcome
from saeops.stats import Interval

TONES = {"pass": "green", "fail": "red", "not-applicable": "dim"}


def render_summary(
    contents: Contents,
    choices: Choices,
    *,
    verdict: Verdict | None,
    review: ReviewOutcome | None,
    report: Path | None,
) -> RenderableType:
    """The end of a build in a screenful, at most 100 columns wide.

    Args:
        report: the page, where one was written.
    """
    review = review or contents.review
    said = ruling(verdict, review, name=choices.name, size=choices.size)
    return Group(
        "",
        _made(contents, choices),
        "",
        _figures(contents.metrics, rivals_of(contents)),
        "",
        _labels(measure_coverage(contents, choices, review)),
        "",
        *_verdict(said),
        "",
        _next(said, report),
    )


def _made(contents: Contents, choices: Choices) -> RenderableType:
    facts = "  ·  ".join(f"{fact.title} {fact.value}" for fact in headline(contents) if fact.title in _SHOWN)
    title = Text.assemble((choices.name, "bold"), "  ", (contents.digest[:12], "cyan"))
    return Group(title, Text(facts, style="dim"))


_SHOWN = {"Variant", "Latents", "k", "Tokens trained on"}


def _figures(metrics: Mapping[str, Interval], rivals: Rivals) -> RenderableType:
    table = _table("figure", "", "95 % interval", "n", "null beside")
    for name in KEY_METRICS:
        interval = metrics.get(name)
        if interval is None:
            continue
        known = () if name in MATCHED else beside(name, metrics, rivals)
        null = next((one for one in known if one.kind == "null"), None)
        table.add_row(
            title_of(name),
            Text(number(interval.point), style="bold"),
            "none" if interval.low is None else bounds(interval),
            f"{count(interval.n)} {interval.unit}",
            f"{null.what} {number(null.interval.point)}" if null else "",
        )
    return table


KEY_METRICS = (
    "explained_variance",
    "l0",
    "dead_fraction",
    "delta_ce_nats",
    "ce_recovered_mean",
    "coherence",
    "probe_explained",
    "label_confidence",
    "steering_effect_nats",
)
"""What a person wants to know first; the page has the rest."""

MATCHED = ("l0",)
"""Nulls are made as sparse as the dictionary: theirs says nothing."""


def _labels(cover: Coverage) -> Text:
    return Text(
        f"{count(cover.living)} of {count(cover.latents)} latents fire, {count(cover.labelled)} are labelled, "
        f"{count(cover.scored)} tested, {count(cover.trusted)} trusted, {count(cover.reviewed)} reviewed"
    )


def _verdict(said: Ruling) -> list[RenderableType]:
    tone = TONES.get(said.outcome, "yellow")
    lines: list[RenderableType] = [
        Text.assemble((f"{said.sign} {said.title}", f"bold {tone}"), "  ", said.sentence)
    ]
    if said.gates:
        table = Table.grid(padding=(0, 2))
        for gate in said.gates:
            style = TONES.get(gate.outcome, "yellow")
            table.add_row(
                Text(gate.sign, style=style),
                Text.assemble(gate.title, " ", (gate.asked, "dim")),
                Text(gate.reason.replace("`", "")),
            )
        lines.append(Padding(table, (0, 0, 0, 2)))
    return lines


def _next(said: Ruling, report: Path | None) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(no_wrap=True)
    for step in said.steps:
        table.add_row(Text("→", style="dim"), Text(step.command, style="bold"), Text(step.why, style="dim"))
    if report is None:
        return Group(Text("next"), table)
    page = Text.assemble("the report  ", (str(report), "bold"), overflow="fold")
    return Group(Text("next", style="bold"), table, "", page)


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index == 1 else "left", no_wrap=index < 3)
    return table
