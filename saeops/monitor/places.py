"""Where the tokens of a forward pass stand in their sequences, with padding and with a key-value cache.

# B sequence, W token of this pass
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from saeops.activations.policy import TokenPolicy


@dataclass(frozen=True)
class Places:
    """The tokens of one forward pass."""

    ids: Int[Tensor, "B W"]
    sequence: Int[Tensor, " B"]
    """Counts up over everything that a monitor sees; a pass that goes on from a cache goes on with its numbers."""
    position: Int[Tensor, "B W"]
    """In the sequence, padding on its left not counted."""
    present: Bool[Tensor, "B W"]
    """False on padding."""

    def counted(self, policy: TokenPolicy, special_ids: frozenset[int], *, bos: int | None) -> Bool[Tensor, "B W"]:
        """True where the policy counts a token, before norms are known; as `position_mask` for whole windows."""
        first = max(policy.skip_positions, 0 if bos is None or not policy.prepend_bos else 1)
        mask_BW = self.present & (self.position >= first)
        if policy.mask_special and special_ids:
            mask_BW &= ~torch.isin(self.ids, torch.tensor(sorted(special_ids), device=self.ids.device))
        return mask_BW


class Sequences:
    """Numbers sequences, and knows those that a key-value cache holds."""

    def __init__(self) -> None:
        self._next = 0
        self._of_cache: WeakKeyDictionary[Any, Int[Tensor, " B"]] = WeakKeyDictionary()

    def places(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Places | None:
        """Of a call of a transformers base model; None where it is given embeddings instead of tokens."""
        ids = args[0] if args else kwargs.get("input_ids")
        if ids is None:
            return None
        cache = kwargs.get("past_key_values")
        past = 0 if cache is None else int(cache.get_seq_length())
        return _place(ids, self._numbers(len(ids), cache, past), kwargs.get("attention_mask"), past)

    def keep(self, places: Places, output: Any) -> None:
        """Remember whose sequences the cache in a pass's output holds."""
        cache = getattr(output, "past_key_values", None)
        if cache is not None:
            self._of_cache[cache] = places.sequence

    def _numbers(self, count: int, cache: Any, past: int) -> Int[Tensor, " B"]:
        known = self._of_cache.get(cache) if cache is not None and past else None
        if known is not None and len(known) == count:
            return known
        numbers_B = torch.arange(self._next, self._next + count)
        self._next += count
        if cache is not None:
            self._of_cache[cache] = numbers_B
        return numbers_B


def _place(ids_BW: Tensor, numbers_B: Tensor, mask: Any, past: int) -> Places:
    width = ids_BW.shape[1]
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        position_BW = (torch.arange(width, device=ids_BW.device) + past).expand(ids_BW.shape)
        return Places(ids_BW, numbers_B, position_BW, torch.ones_like(ids_BW, dtype=torch.bool))
    mask_BW = mask.to(ids_BW.device).bool()
    before = past if mask_BW.shape[1] == width else 0
    position_BW = mask_BW.long().cumsum(1)[:, -width:] - 1 + before
    return Places(ids_BW, numbers_B, position_BW, mask_BW[:, -width:])
