"""Tokens as a reader sees them, with white space visible but quiet; `js/card.js` does the same in the report."""

import re
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


def _mark(character: str) -> Glyph:
    return Glyph(_MARKS.get(character, "�"), is_mark=True, breaks=character == "\n")
