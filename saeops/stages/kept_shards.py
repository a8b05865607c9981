"""Shards of the activation set that stands, for a harvest of which only a part is new.

A longer corpus, or more tokens of it, leaves most windows what they were: their shards are taken over.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from saeops.activations.reader import ActivationSet
from saeops.activations.store import ShardFacts
from saeops.activations.windows import Window
from saeops.errors import SaeopsError

if TYPE_CHECKING:
    import pandas as pd

WHICH_DOCUMENTS = frozenset({"tokens", "splits"})
"""Choices of a harvest that say which documents are read, and nothing about how."""


@dataclass(frozen=True)
class KeptShards:
    """The pieces of an earlier harvest that read documents as this one does."""

    acts: ActivationSet
    pieces: Mapping[str, Sequence[Window]]
    """The windows behind one shard of each site."""

    @classmethod
    def of(
        cls,
        folder: Path,
        inputs: Mapping[str, Any],
        limits: Mapping[str, float | None],
        plan: "Callable[[pd.DataFrame], Mapping[str, Sequence[Window]]]",
    ) -> Self | None:
        """What stands in the folder; None where it is nothing whole, or was harvested in another way.

        Args:
            inputs: everything that determines the new set.
            limits: the largest norm that counts at each of its sites.
            plan: the pieces of a DocumentTable.
        """
        with contextlib.suppress(SaeopsError):
            acts = ActivationSet.open(folder)
            alike = _reading(acts.sealed.inputs) == _reading(inputs)
            if alike and limits == {site: acts.norm_limit(site) for site in acts.sites}:
                return cls(acts, plan(acts.documents))
        return None

    def take(self, piece: str, windows: Sequence[Window], folder: Path) -> list[ShardFacts] | None:
        """Put the shards of these windows into the folder; None where they are not here, or not whole."""
        if self.pieces.get(piece) != windows:
            return None
        with contextlib.suppress(SaeopsError):
            facts = self.acts.facts(*piece.rsplit("-", 1))
            for shard in facts:
                _put(self.acts.checked_path(shard.name), folder / shard.name)
            return facts
        return None


def _reading(inputs: Mapping[str, Any]) -> dict[str, Any]:
    harvest = {name: value for name, value in inputs["harvest"].items() if name not in WHICH_DOCUMENTS}
    return {"model": inputs["model"], "model_dtype": inputs["model_dtype"], "harvest": harvest}


def _put(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        # Neither name is ever written to again.
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
