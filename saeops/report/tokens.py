"""Tokens as a reader sees them: shaded by activation, with white space visible but quiet."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_MARKS = {"\n": "↵", "\r": "␍", "\t": "⇥", " ": "·"}
# One space before a word is how tokens look; any other white space, and what cannot be seen, gets a mark.
_INVISIBLE = re.compile(r"[\n\r\t\x00-\x1f\x7f\u200b-\u200f\u2028-\u202e\u2060\ufeff]| {2,}|^ $")


@dataclass(frozen=True)
class Glyph:
    """A run of characters: text as it is, or the mark of something that has no shape of its own."""

    text: str
    is_mark: bool = False
    breaks: bool = False
    """A line ends here."""


@dataclass(frozen=True)
class Piece:
    """One token, or a run of silent ones."""

    glyphs: tuple[Glyph, ...]
    activation: float
    """This latent's activation on it; 0 where it is silent."""
    strength: float
    """Activation as a share of the strongest shown on the card, in [0, 1]."""
    is_peak: bool = False
    """The token the context was picked for."""


def glyphs(text: str) -> tuple[Glyph, ...]:
    """Split a token's text into what shows by itself and marks for what does not."""
    found: list[Glyph] = []
    end = 0
    for match in _INVISIBLE.finditer(text):
        if match.start() > end:
            found.append(Glyph(text[end : match.start()]))
        found.extend(_mark(character) for character in match[0])
        end = match.end()
    if end < len(text):
        found.append(Glyph(text[end:]))
    return tuple(found)


def visible(text: str) -> str:
    """A token by itself, as one string: every space and line end marked."""
    shown = "".join(_MARKS.get(character, character) for character in text)
    return "".join(glyph.text for glyph in glyphs(shown)) or "∅"


def shade(texts: Sequence[str], activations: Sequence[float], *, strongest: float, peak: int) -> tuple[Piece, ...]:
    """A context as pieces to draw, silent neighbours joined.

    Args:
        texts: the tokens' texts, in order.
        activations: one latent's activation on each of them.
        strongest: the activation that is drawn at full strength.
        peak: index of the token the context was picked for.
    """
    pieces: list[Piece] = []
    silent = ""
    for index, (text, activation) in enumerate(zip(texts, activations, strict=True)):
        if activation <= 0 and index != peak:
            silent += text
            continue
        if silent:
            pieces.append(Piece(glyphs(silent), 0.0, 0.0))
            silent = ""
        strength = min(1.0, activation / strongest) if strongest > 0 else 0.0
        pieces.append(Piece(glyphs(text), float(activation), strength, is_peak=index == peak))
    if silent:
        pieces.append(Piece(glyphs(silent), 0.0, 0.0))
    return tuple(pieces)


def _mark(character: str) -> Glyph:
    return Glyph(_MARKS.get(character, "�"), is_mark=True, breaks=character == "\n")
