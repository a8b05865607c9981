"""Model sources: what `saeops watch` asks of a place where new versions of a model appear."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Glimpse:
    """What a source shows at a look that reads no weights."""

    fingerprint: str
    """Changes when the version does."""
    final: bool
    """It names bytes that never change, such as a commit; otherwise it counts once two looks showed the same."""


@dataclass(frozen=True)
class NotWhole:
    """There is nothing to take yet."""

    why: str


@dataclass(frozen=True)
class ModelVersion:
    """A version, fetched and read."""

    ref: str
    """What loads it: a model reference as `model.ref` takes it."""
    digest: str
    """Of the model: weights, tokenizer and config."""


class ModelSource(Protocol):
    """A place where new versions of a model appear."""

    address: str
    """For people and records, e.g. `hub:owner/name@main`."""

    def look(self) -> Glimpse | NotWhole:
        """What is there now, without reading weights.

        Raises:
            Unavailable: the source does not answer.
            ModelUnavailable: it says that there is no such model.
        """
        ...

    def take(self, glimpse: Glimpse) -> ModelVersion | NotWhole:
        """Fetch and read what the look showed; `NotWhole` where it changed meanwhile.

        Raises:
            Unavailable, ModelUnavailable: as `look`, or the version cannot be loaded.
        """
        ...
