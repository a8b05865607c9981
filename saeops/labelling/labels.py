"""What a labeller gives: a label, or why there is none. A failure is a type, never a text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from saeops.digests import digest_json
from saeops.labelling.examples import Examples, Snippet

PATTERN = "pattern"
"""Name of the labeller that needs no LLM."""


@dataclass(frozen=True)
class Label:
    """What a latent stands for, in words, and what its judge needs beside the words."""

    labeller: str
    """`pattern`, or `llm:<name>`."""
    text: str
    rule: str | None = None
    """JSON: the pattern's slots, or the judge's calibration; None where the text is all."""

    @property
    def version(self) -> str:
        """The first 16 characters of a sha256 over labeller and text: what a review is bound to."""
        return digest_json([self.labeller, self.text])[:16]


@dataclass(frozen=True)
class Unparsed:
    """An answer that could not be read. It is counted, never shown as a label or averaged as a verdict."""

    reason: str


Outcome = Label | Unparsed
Verdict = bool | Unparsed


class Labeller(Protocol):
    """Explains latents, and detects from a label alone where a latent fires."""

    name: str
    batch: int
    """Latents it likes to explain at once."""
    outside: bool
    """Its answers come from outside this process."""

    def explain(self, examples: Sequence[Examples]) -> list[Outcome]:
        """One outcome a latent."""
        ...

    def detect(self, label: Label, snippets: Sequence[Snippet]) -> list[Verdict]:
        """Whether the latent fires at each snippet's judged token; the truth in the snippets is not looked at."""
        ...
