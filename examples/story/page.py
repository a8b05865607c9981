"""The story's page: one file that opens in a browser without a network."""

import base64
import html
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from examples.story.chapters import CHAPTERS, KIND, NAME, Chapter
from examples.story.figures import before_and_after, history, outcomes, starts
from examples.story.telling import Story
from saeops.files import write_atomic
from saeops.metrics import read_metrics
from saeops.stats import Interval

TEMPLATE = "page.jinja"
JUDGED = ("explained_variance", "delta_ce_nats", "carry_over_coverage")


@dataclass(frozen=True)
class Shown:
    """A chapter on the page."""

    title: str
    minutes: float
    commands: tuple[str, ...]
    outputs: tuple[str, ...]
    sentences: tuple[str, ...]
    pictures: tuple[str, ...]
    """SVG, or an img element."""


def write_page(story: Story, checkout: Path, folder: Path) -> Path:
    """Write `story.html` into the folder."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    told = {each.key: each for each in story.chapters}
    shown = [
        Shown(
            chapter.title,
            told[chapter.key].seconds / 60,
            tuple(command.shown for command in chapter.commands),
            tuple(output for output in told[chapter.key].outputs if output),
            *_content(chapter, story.kept, checkout),
        )
        for chapter in CHAPTERS
        if chapter.key in told
    ]
    text = environment.get_template(TEMPLATE).render(
        chapters=shown, name=NAME, minutes=story.seconds / 60, champions=_champions(story.kept)
    )
    path = folder / "story.html"
    write_atomic(path, text.encode())
    return path


def _content(chapter: Chapter, kept: Mapping[str, Any], checkout: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sentences and pictures."""
    match chapter.key:
        case "build":
            return (f"{NAME} has its first champion: {_short(kept['champion_v1'])}.",), ()
        case "finetune":
            return _finetuned(kept["finetuned"])
        case "audit":
            return _audited(kept["audit"], checkout / "artifacts" / "audit")
        case "retrain":
            return _retrained(kept, checkout / "artifacts")
        case "match":
            return _matched(kept["match"], checkout / "artifacts" / "match")
        case "rollback":
            return _rolled_back(kept)
        case other:
            raise AssertionError(other)


def _finetuned(made: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    before, after, difference = (Interval.from_json(made[name]) for name in ("before", "after", "difference"))
    sentence = (
        f"Trained on {made['tokens']:,} tokens of {made['documents']} documents from {KIND}, none of them"
        f" harvested. Its cross-entropy on held-out documents of that kind changes by {difference} nats a token."
    )
    return (sentence,), (before_and_after(before, after),)


def _audited(audit: Mapping[str, Any], folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    record = audit["record"]
    sentences = [
        f"Outcome: {record['outcome']}, on {record['documents']} held-out documents"
        f" ({record['tokens']:,} tokens).",
        *(f"{reason[0].upper()}{reason[1:]}." for reason in record["reasons"]),
    ]
    return tuple(sentences), (outcomes(record["latents"]), *_images(folder))


def _retrained(kept: Mapping[str, Any], artifacts: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    summary = json.loads((artifacts / "sae" / "manifest.json").read_bytes())["summary"]
    sentences, pictures = [], []
    if "start" in summary:
        start = summary["start"]
        figures = {key: Interval.from_json(value) for key, value in start["explained_variance"].items()}
        sentences.append(
            f"Both starts were trained on all tokens; the {start['kept']} one is kept: explained variance, warm"
            f" less fresh, {figures['difference']}."
        )
        pictures.append(starts(figures["warm"], figures["fresh"]))
    carried = read_metrics(artifacts / "labels" / "metrics.json")
    shown = [name for name in ("carry_over_coverage", "carry_over_confidence") if name in carried]
    sentences += [f"{name.replace('_', ' ').capitalize()}: {carried[name]}." for name in shown]
    beside = [gate for gate in kept["verdict"][0]["verdict"]["gates"] if gate["metric"] in JUDGED]
    sentences += [f"Judged: {gate['requirement']}: {gate['reason']}." for gate in beside]
    sentences.append(f"The new champion: {_short(kept['champion_v2'])}.")
    return tuple(sentences), tuple(pictures)


def _matched(match: Mapping[str, Any], folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    shares = {name: Interval.from_json(value) for name, value in match["metrics"].items()}
    kinds = {
        name.removeprefix("match_").removesuffix("_fraction"): round(share.point * share.n)
        for name, share in shares.items()
        if name.endswith("_fraction")
    }
    sentences = [f"Of the latents of the champion before it, {shares['match_matched_fraction']} have one partner."]
    if "match_beside_seeds" in shares:
        seeds = shares["match_beside_seeds"]
        sentences.append(
            f"A latent is nearer to its partner than to one in another seed with probability {seeds}."
        )
    return tuple(sentences), (outcomes(kinds), *_images(folder))


def _rolled_back(kept: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    sentence = (
        f"The champion is {_short(kept['champion_after'])} again. The version left behind is pinned, so that"
        " nothing promotes it by itself; every entry of the journal was checked to the last byte."
    )
    return (sentence,), (history(kept["history"]),)


def _champions(kept: Mapping[str, Any]) -> list[str]:
    return [_short(kept[key]) for key in ("champion_v1", "champion_v2", "champion_after") if key in kept]


def _short(status: Any) -> str:
    found = status[0] if isinstance(status, list) else status
    return str(found["champion"])[:12]


def _images(folder: Path) -> Iterable[str]:
    for path in sorted(folder.rglob("*.png")):
        data = base64.b64encode(path.read_bytes()).decode()
        yield f'<img alt="{html.escape(path.stem.replace("_", " "))}" src="data:image/png;base64,{data}">'
