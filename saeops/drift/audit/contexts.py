"""A latent's strongest windows under each model, and how many of them are the same.

# F latent, N entry (one latent firing on one token), K kept entry, S slot
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float, Int

from saeops.catalog.strongest import rank_in_run

Array = np.ndarray


@dataclass(frozen=True)
class Strongest:
    """The strongest windows of each latent, at most `top`, from the best down; one entry a window."""

    latent: Int[Array, " K"]
    window: Int[Array, " K"]
    row: Int[Array, " K"]
    """The token at which it fires most there."""
    value: Float[Array, " K"]

    @classmethod
    def of(
        cls,
        latent: Int[Array, " N"],
        window: Int[Array, " N"],
        row: Int[Array, " N"],
        value: Float[Array, " N"],
        *,
        top: int,
    ) -> Self:
        """From every firing; of equal ones the earlier window stays."""
        order = np.lexsort((row, -value, window, latent))
        latent, window, row, value = (column[order] for column in (latent, window, row, value))
        first = rank_in_run(latent, window) == 0
        latent, window, row, value = (column[first] for column in (latent, window, row, value))
        order = np.lexsort((window, -value, latent))
        latent, window, row, value = (column[order] for column in (latent, window, row, value))
        keep = rank_in_run(latent) < top
        return cls(latent[keep], window[keep], row[keep], value[keep])

    @classmethod
    def merged(cls, parts: Sequence[Self], *, top: int) -> Self:
        """The strongest of several groups of windows together."""
        columns = (np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0]))
        return cls.of(*columns, top=top)

    def relabelled(self, latent_F: Int[Array, " F"]) -> Self:
        """Latent f under the name latent_F[f]."""
        return type(self)(latent_F[self.latent], self.window, self.row, self.value)

    def counts(self, latents: int) -> Int[Array, " F"]:
        return np.bincount(self.latent, minlength=latents)


def overlap(old: Strongest, new: Strongest, latents: int) -> Float[Array, " F"]:
    """|old ∩ new| / |old|: how many of a latent's strongest windows stay among them; NaN where it had none.

    Fewer on the new side count as missing; more than there were do not count.
    """
    span = int(max(old.window.max(initial=0), new.window.max(initial=0))) + 1
    stays = np.isin(old.latent * span + old.window, new.latent * span + new.window)
    had = old.counts(latents)
    same = np.bincount(old.latent[stays], minlength=latents)
    return np.where(had > 0, same / np.maximum(had, 1), np.nan)
