"""The report page: one self-contained HTML file that opens in a browser without a network."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from saeops.promotion.policy import PromotePolicy
from saeops.promotion.verdict import Verdict
from saeops.report.charts import charts
from saeops.report.contents import Contents
from saeops.report.declared import DECLARED
from saeops.report.effects import benches
from saeops.report.features import Card, Texts, card
from saeops.report.numbers import count, number, plural, share
from saeops.report.rows import groups, nulls_of, title_of
from saeops.report.ruling import Command, Size, ruling
from saeops.report.sampling import Chosen, Coverage, choose, coverage
from saeops.review.outcome import ReviewOutcome
from saeops.stats import Interval

PICTURES = {
    "l0": "How many latents fire on a token",
    "activations": "How strongly some latents fire",
    "positions": "Explained variance along the window",
}
"""Figures of diagnostics whose data no table holds; the page draws the others itself."""


@dataclass(frozen=True)
class Choices:
    """What the report needs of the params."""

    name: str
    seed: int
    min_positives: int
    policy: PromotePolicy
    size: Size


@dataclass(frozen=True)
class Fact:
    """A name, a value, and the value in full."""

    title: str
    value: str
    title_text: str = ""


@dataclass(frozen=True)
class Step:
    """One bar of the coverage."""

    what: str
    amount: int
    per_cent: float


def render(
    contents: Contents,
    choices: Choices,
    *,
    texts: Texts,
    verdict: Verdict | None,
    review: ReviewOutcome | None,
) -> str:
    """The whole page as HTML; all text that came from a model or a corpus is escaped.

    Args:
        texts: token ids to the text of each.
    """
    review = review or contents.review
    cover = measure_coverage(contents, choices, review)
    chosen = choose(contents, seed=choices.seed)
    cards = _Cards(contents, choices, texts, frozenset(review.pending))
    metrics = {**contents.metrics, "review_acceptance": review.acceptance}
    return (
        _environment()
        .get_template("page.jinja")
        .render(
            head={"name": choices.name, "digest": contents.digest, "facts": headline(contents)},
            ruling=ruling(verdict, review, name=choices.name, size=choices.size),
            groups=groups(metrics, DECLARED, choices.policy.gates, nulls_of(contents.meta)),
            charts=charts(contents),
            pictures=_pictures(contents),
            coverage_sentence=coverage_sentence(cover, chosen),
            funnel=_funnel(cover),
            samples={
                "random": [cards(latent) for latent in chosen.random],
                "random_labelled": [cards(latent) for latent in chosen.random_labelled],
                "best": [cards(latent) for latent in chosen.best],
                **_samples_say(chosen, cover),
            },
            interventions=benches(contents),
            interventions_say=_interventions_say(cover.benched),
            provenance=_provenance(contents),
            reproduce=_reproduce(choices.name),
            params_text=yaml.safe_dump(contents.provenance.params, sort_keys=False, allow_unicode=True),
        )
    )


def measure_coverage(contents: Contents, choices: Choices, review: ReviewOutcome) -> Coverage:
    """Coverage by the params in force."""
    return coverage(
        contents,
        min_positives=choices.min_positives,
        trusted_confidence=choices.policy.trusted_confidence,
        reviewed=review.decided,
    )


def headline(contents: Contents) -> tuple[Fact, ...]:
    """What the dictionary is, in a few words."""
    meta = contents.meta
    trained = int(contents.training["tokens"].iloc[-1]) if len(contents.training) else 0
    facts = [
        Fact("Model", _short_model(str(meta.model.get("ref", "unknown"))), str(meta.model.get("digest", ""))),
        Fact("Site", str(meta.sites)),
        Fact("Variant", meta.variant),
        Fact("Latents", count(meta.d_sae)),
        Fact("Width of the model", count(meta.d_model)),
        Fact("Tokens trained on", count(trained)),
    ]
    if meta.k is not None:
        facts.insert(4, Fact("k", count(meta.k), "latents that fire on each token"))
    return tuple(facts)


def coverage_sentence(cover: Coverage, chosen: Chosen) -> str:
    """How much of the dictionary anybody has looked at, in words."""
    shown = len({*chosen.random, *chosen.random_labelled, *chosen.best})
    return (
        f"Of {plural(cover.latents, 'latent')}, {count(cover.living)} fire on the explain documents. "
        f"{count(cover.labelled)} carry a label, {count(cover.scored)} of these labels were tested on enough "
        f"firing snippets, {count(cover.trusted)} are trusted, and people decided on {count(cover.reviewed)}. "
        f"{count(shown)} are shown here; the random ones were drawn with seed {chosen.seed} "
        "before anything was known of their labels."
    )


class _Cards:
    """Cards by latent, each made once."""

    def __init__(self, contents: Contents, choices: Choices, texts: Texts, waiting: frozenset[int]) -> None:
        self._contents, self._choices, self._texts, self._waiting = contents, choices, texts, waiting
        self._made: dict[int, Card] = {}

    def __call__(self, latent: int) -> Card:
        if latent not in self._made:
            self._made[latent] = card(
                self._contents,
                latent,
                texts=self._texts,
                min_positives=self._choices.min_positives,
                trusted_confidence=self._choices.policy.trusted_confidence,
                waiting=latent in self._waiting,
            )
        return self._made[latent]


def _environment() -> Environment:
    # Jinja decides by the file's name whether to escape; these names would all come out unescaped.
    environment = Environment(
        loader=PackageLoader("saeops", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number, share=share, between=_between, px=_pixels, breaks=_breaks, commands=_commands
    )
    return environment


def _pixels(value: float) -> str:
    return f"{value:.1f}"


def _breaks(text: str) -> list[str]:
    """Where a long name may go on in the next line: after a slash or a dot."""
    return re.split(r"(?<=[/.])", text)


def _commands(text: str) -> Markup:
    """What stands between backticks as code; everything is escaped."""
    parts = text.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else p for i, p in enumerate(parts))


def _between(interval: Interval, as_share: bool = True) -> str:
    if interval.low is None or interval.high is None:
        return "no interval"
    text = share if as_share else number
    return f"{text(interval.low)} to {text(interval.high)}".replace(" % to", " to")


def _funnel(cover: Coverage) -> list[Step]:
    steps = (
        ("latents", cover.latents),
        ("living", cover.living),
        ("labelled", cover.labelled),
        ("tested", cover.scored),
        ("trusted", cover.trusted),
        ("reviewed", cover.reviewed),
        ("benched", cover.benched),
    )
    return [Step(what, amount, 100 * amount / max(cover.latents, 1)) for what, amount in steps]


def _samples_say(chosen: Chosen, cover: Coverage) -> dict[str, str]:
    return {
        "random_says": f"{len(chosen.random)} of all {count(cover.latents)} latents, the dead and the "
        f"unlabelled included, in the order drawn (seed {chosen.seed}).",
        "labelled_says": f"{len(chosen.random_labelled)} more, drawn from the {count(cover.labelled)} labelled.",
        "best_says": f"The {len(chosen.best)} labels with the highest confidence among those not shown beside: "
        "the flattering end, not the typical one.",
    }


def _interventions_say(benched: int) -> str:
    return (
        f"{plural(benched, 'latent')} switched off or steered on a fixed panel, strengths in units of the "
        "latent’s own maximum. The ring is the same done with random directions of equal length: only what goes "
        "beyond them is the latent’s own."
    )


def _pictures(contents: Contents) -> list[dict[str, str]]:
    return [
        {"title": title, "source": "data:image/png;base64," + base64.b64encode(contents.pictures[name]).decode()}
        for name, title in PICTURES.items()
        if name in contents.pictures
    ]


def _provenance(contents: Contents) -> list[Fact]:
    facts = [Fact("Bundle", contents.digest)]
    rest = contents.provenance.model_dump(mode="json", exclude={"params", "name"})
    return facts + [Fact(title_of(path), value) for key, part in rest.items() for path, value in _flat(key, part)]


def _flat(path: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [pair for key, part in value.items() for pair in _flat(f"{path}_{key}", part)]
    return [(path, "–" if value is None else str(value))]


def _reproduce(name: str) -> tuple[Command, ...]:
    return (
        Command("Rebuild from a checkout at the same revision; unchanged stages are kept", "dvc repro"),
        Command("Once it is champion, read every byte of it again", f"saeops verify {name}"),
    )


def _short_model(ref: str) -> str:
    return ref.rstrip("/").split("/")[-1] or ref
