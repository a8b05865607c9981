"""The report page: one self-contained HTML file that opens in a browser without a network."""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from saeops.promotion.policy import PromotePolicy
from saeops.promotion.verdict import Verdict
from saeops.report.blocks import pack
from saeops.report.charts import charts, profiles
from saeops.report.concepts import known
from saeops.report.contents import Champion, Contents
from saeops.report.declared import DECLARED
from saeops.report.effects import benches
from saeops.report.excerpts import Excerpts
from saeops.report.features import features
from saeops.report.index import Judged
from saeops.report.numbers import count, number, plural, share
from saeops.report.rows import Rivals, groups, title_of
from saeops.report.ruling import Command, Size, ruling
from saeops.report.sampling import Coverage, coverage, drawn_order
from saeops.report.strings import Texts
from saeops.review.outcome import ReviewOutcome
from saeops.stats import Interval

PICTURES = {"l0": "How many latents fire on a token"}
"""Figures of diagnostics whose data no table holds; the page draws the others itself."""

SCRIPTS = ("start", "data", "search", "card", "list", "browser", "keys", "figures", "scatter")
"""Files of `js/`, in the order in which they run."""
STYLES = ("page.css", "browser.css")


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
    champion: Champion | None = None,
) -> str:
    """The whole page as HTML; all text that came from a model or a corpus is escaped, or packed into base64.

    Args:
        texts: token ids to the text of each.
        champion: what the bundle is compared with, where there is another.
    """
    review = review or contents.review
    cover = measure_coverage(contents, choices, review)
    waiting = frozenset(review.pending)
    found = features(
        contents,
        drawn_order(contents, seed=choices.seed),
        Judged(
            choices.min_positives,
            choices.policy.trusted_confidence,
            waiting=waiting,
            reviewed=contents.queued - waiting,
        ),
        texts,
    )
    metrics = {**contents.metrics, "review_acceptance": review.acceptance}
    rivals = rivals_of(contents, champion)
    environment = _environment()
    script = _script(environment)
    return environment.get_template("page.jinja").render(
        head={"name": choices.name, "digest": contents.digest, "facts": headline(contents)},
        ruling=ruling(verdict, review, name=choices.name, size=choices.size),
        groups=groups(metrics, DECLARED, choices.policy.gates, rivals),
        champion=champion.digest if champion else None,
        nulls=[rivals.title(null) for null in rivals.nulls],
        charts=charts(contents),
        profiles=profiles(contents),
        concepts=known(contents),
        pictures=_pictures(contents),
        coverage_sentence=coverage_sentence(cover, choices.seed),
        shown_sentence=shown_sentence(found.excerpts, cover),
        funnel=_funnel(cover),
        blocks={"index": pack(found.index), "details": [pack(block) for block in found.details]},
        interventions=benches(contents),
        interventions_say=_interventions_say(cover.benched),
        provenance=_provenance(contents),
        reproduce=_reproduce(choices.name),
        params_text=yaml.safe_dump(contents.provenance.params, sort_keys=False, allow_unicode=True),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup("\n".join(_source(environment, name) for name in STYLES)),
    )


def rivals_of(contents: Contents, champion: Champion | None = None) -> Rivals:
    """What the bundle's figures are shown beside."""
    return Rivals(contents.nulls, champion.metrics if champion else {}, contents.meta.sites.transcodes)


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


def coverage_sentence(cover: Coverage, seed: int) -> str:
    """How much of the dictionary anybody has looked at, in words."""
    return (
        f"Of {plural(cover.latents, 'latent')}, {count(cover.living)} fire on the explain documents. "
        f"{count(cover.labelled)} carry a label, {count(cover.scored)} of these labels were tested on enough "
        f"firing snippets, {count(cover.trusted)} are trusted, and people decided on {count(cover.reviewed)}. "
        f"All stand below, first in an order drawn with seed {seed} before anything was known of their labels."
    )


def shown_sentence(shown: Excerpts, cover: Coverage) -> str:
    """How many of the catalog's contexts the page holds."""
    return (
        f"Contexts: {count(len(shown.contexts))} of the catalog’s {count(shown.of_all)}, at most "
        f"{shown.a_latent} of each of the {count(cover.living)} living latents: its strongest, and samples from "
        "down its activation range."
    )


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


def _source(environment: Environment, name: str) -> str:
    """A file as it is: scripts and styles are no templates."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0].strip()


def _script(environment: Environment) -> str:
    return "\n".join(_source(environment, f"js/{name}.js") for name in SCRIPTS)


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
        ("steered", cover.benched),
    )
    return [Step(what, amount, 100 * amount / max(cover.latents, 1)) for what, amount in steps]


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
        if name in contents.pictures and not _is_constant(contents.metrics)
    ]


def _is_constant(metrics: Mapping[str, Interval]) -> bool:
    """As many latents fire on nearly every token: a picture of one bar says nothing."""
    ends = [metrics[name].point for name in ("l0_p05", "l0_p95") if name in metrics]
    return len(ends) == 2 and ends[0] == ends[1]


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
