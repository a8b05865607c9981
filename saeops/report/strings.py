"""Token texts, each written once: the page's data name them by number, frequent ones by small numbers."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

Texts = Callable[[Sequence[int]], list[str]]
"""Token ids to the text of each."""


@dataclass(frozen=True)
class StringTable:
    """Texts and their numbers."""

    strings: tuple[str, ...]
    _number: dict[str, int] = field(repr=False)

    @classmethod
    def of(cls, counted: Counter[str]) -> "StringTable":
        """The most frequent first, so that the data hold short numbers."""
        ranked = sorted(counted, key=lambda text: (-counted[text], text))
        return cls(tuple(ranked), {text: place for place, text in enumerate(ranked)})

    def numbers(self, texts: Iterable[str]) -> list[int]:
        """The number of each text.

        Raises:
            KeyError: a text that was not counted.
        """
        return [self._number[text] for text in texts]
