"""The page of an inspected text: one self-contained HTML file that opens in a browser without a network."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from saeops.dictionary.handle import Feature
from saeops.dictionary.inspect import MASKED, Inspected, InspectedToken
from saeops.report.numbers import number, share
from saeops.report.tokens import Glyph, glyphs, visible


@dataclass(frozen=True)
class Chip:
    """One token as the page draws it."""

    glyphs: tuple[Glyph, ...]
    kind: str
    """`masked`, `silent` (nothing trusted fires) or `lit`."""
    strength: float
    """Of its strongest feature: its activation as a share of the latent's maximum, at most 1."""
    says: str
    """What fires on it, in words: for a reader without scripts."""


@dataclass(frozen=True)
class Found:
    """A trusted feature with the token it is strongest on."""

    feature: Feature
    tokens: int
    strongest: float
    share: float | None
    on: str


def render(found: Inspected) -> str:
    """The whole page as HTML; all text that came from a person, a model or a label is escaped."""
    template = _environment().get_template("inspected.jinja")
    return template.render(
        found=found,
        windows=list(_windows(found)),
        features=features_found(found),
        data=[_data(token) for token in found.tokens],
    )


def features_found(found: Inspected) -> list[Found]:
    """The trusted features that fire on any token, those nearest to their own maximum first."""
    seen: dict[int, list[tuple[float, float | None, str]]] = {}
    features: dict[int, Feature] = {}
    for token in found.tokens:
        for active in token.features:
            features[active.feature.latent] = active.feature
            seen.setdefault(active.feature.latent, []).append(
                (active.activation, active.share, visible(token.text))
            )
    rows = [
        Found(features[latent], len(places), *max(places, key=lambda place: place[0]))
        for latent, places in seen.items()
    ]
    return sorted(rows, key=lambda row: (-(row.share or 0.0), row.feature.latent))


def _windows(found: Inspected) -> Iterator[list[tuple[int, Chip]]]:
    """Chips with their number, a window at a time."""
    chips = [(at, token.window, _chip(token)) for at, token in enumerate(found.tokens)]
    for window in range(1 + max(token.window for token in found.tokens)):
        yield [(at, chip) for at, of, chip in chips if of == window]


def _chip(token: InspectedToken) -> Chip:
    shown = glyphs(token.text) or (Glyph(visible(token.text), is_mark=True),)
    if token.masked is not None:
        return Chip(shown, "masked", 0.0, f"masked: {MASKED[token.masked]}")
    if not token.features:
        return Chip(shown, "silent", 0.0, f"nothing trusted; {token.fired:,} latents fire")
    strength = min(1.0, max(active.share or 0.0 for active in token.features))
    says = "; ".join(f"{active.feature.label} {number(active.activation)}" for active in token.features)
    return Chip(shown, "lit", strength, says)


def _data(token: InspectedToken) -> dict[str, Any]:
    """What the page's script shows of a token."""
    if token.masked is not None:
        note = f"Masked: {MASKED[token.masked]}."
    elif not token.features:
        note = f"Nothing trusted fires here; {token.fired:,} latents do."
    else:
        note = f"{len(token.features):,} trusted of {token.fired:,} latents that fire here."
    features = [
        {
            "latent": active.feature.latent,
            "label": active.feature.label,
            "activation": number(active.activation),
            "share": share(active.share),
            "strength": min(1.0, active.share or 0.0),
            "confidence": f"{active.feature.confidence:.2f}",
        }
        for active in token.features
    ]
    return {"text": visible(token.text), "note": note, "features": features}


def _environment() -> Environment:
    # Jinja decides by the file's name whether to escape; these names would all come out unescaped.
    environment = Environment(
        loader=PackageLoader("saeops", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, share=share)
    return environment
