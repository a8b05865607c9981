"""Forward passes with an edit in place: the one spot where windows become batches.

# B window, W position in a window, D d_model, V vocabulary, N window in the caller's order
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saeops.activations.policy import TokenPolicy
from saeops.activations.sites import Edit, PairEdit, Sites
from saeops.activations.windows import Window, pad_windows, position_mask, prepended, window_lengths
from saeops.interventions.hooks import latent_activation, only_at
from saeops.sae.canonical import Sae, SaeMeta

BATCH_TOKENS = 512
"""Positions a pass, padding included: more gains no speed on a CPU, and logits take V · 4 bytes each."""

PADDING_SHARE = 0.2
"""Largest share of a batch's positions that may be padding."""


class Passes(Protocol):
    """Forward passes over the same windows."""

    def logits(self, edits: Mapping[str, Edit] | None = None, *, at: Tensor | None = None) -> Tensor: ...


class Model(Protocol):
    """The part of a language model that the bench needs."""

    bos_id: int | None
    special_ids: frozenset[int]

    def capture(self, ids: Tensor, sites: Sequence[str]) -> dict[str, Tensor]: ...

    def from_site(self, ids: Tensor, sites: Sequence[str]) -> Passes: ...

    def unembed(self, directions: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Batch:
    """Windows of similar length, padded on the right."""

    ids_BW: Int[Tensor, "B W"]
    lengths_B: Int[Tensor, " B"]
    mask_BW: Bool[Tensor, "B W"]
    """Where the token policy counts a position, norms aside."""
    order_B: Int[Tensor, " B"]
    """Place of each window in the caller's order."""
    passes: Passes = field(repr=False, compare=False)
    """Over these windows; the layers before the site run with the first of them only."""


@dataclass(frozen=True)
class Site:
    """Where in a model an SAE reads and writes, under one token policy: all a pass needs beside text and edit."""

    model: Model
    sites: Sites
    policy: TokenPolicy
    norm_limit: float | None
    target_norm_limit: float | None = None
    """The norm limit at the target, where it is another site."""

    @classmethod
    def of(cls, model: Model, meta: SaeMeta) -> "Site":
        """That of an SAE, under the policy it was trained with."""
        return cls(model, meta.sites, meta.policy, meta.norm_limit, meta.target_norm_limit)

    @property
    def bos(self) -> int | None:
        """The token put before each window, if any."""
        return prepended(self.policy, self.model.bos_id)

    def window(self, tokens: Sequence[int], *, document: int = 0, start: int = 0) -> Window:
        """Tokens as one window, with the prepended token where the policy has one."""
        return Window(document, start, (*(() if self.bos is None else (self.bos,)), *tokens))

    def batches(self, windows: Sequence[Window]) -> list[Batch]:
        """Windows in batches of similar length, so that little is padded."""
        groups: list[list[int]] = []
        for index in sorted(range(len(windows)), key=lambda i: (len(windows[i].ids), i)):
            if not groups or not _fits([len(windows[i].ids) for i in (*groups[-1], index)]):
                groups.append([])
            groups[-1].append(index)
        return [self._batch([windows[i] for i in group], group) for group in groups]

    def _batch(self, windows: Sequence[Window], order: Sequence[int]) -> Batch:
        ids_BW, lengths_B = pad_windows(windows), window_lengths(windows)
        mask_BW = position_mask(ids_BW, lengths_B, self.policy, self.model.special_ids, bos=self.bos)
        passes = self.model.from_site(ids_BW, [self.sites.input, self.sites.target])
        return Batch(ids_BW, lengths_B, mask_BW, torch.tensor(order), passes)

    def last(self, batches: Sequence[Batch], edit: PairEdit | None) -> Float[Tensor, "N V"]:
        """Log-probabilities of what follows each window."""
        parts = [batch.passes.logits(self._edits(batch, edit), at=batch.lengths_B - 1)[:, 0] for batch in batches]
        order_N = torch.cat([batch.order_B for batch in batches])
        return torch.cat(parts).log_softmax(-1)[order_N.argsort().to(parts[0].device)]

    def every(self, batches: Sequence[Batch], edit: PairEdit | None) -> Iterator[Float[Tensor, "B W V"]]:
        """Log-probabilities after every position, batch by batch."""
        for batch in batches:
            yield batch.passes.logits(self._edits(batch, edit)).log_softmax(-1)

    def fires(self, batches: Sequence[Batch], sae: Sae, latent: int) -> bool:
        """Whether the latent fires anywhere the token policy counts."""
        for batch in batches:
            x_BWD = self.model.capture(batch.ids_BW, [self.sites.input])[self.sites.input]
            if bool((latent_activation(sae, x_BWD, latent) > 0)[batch.mask_BW.to(x_BWD.device)].any()):
                return True
        return False

    def _edits(self, batch: Batch, edit: PairEdit | None) -> dict[str, Edit]:
        if edit is None:
            return {}
        limits = {"norm_limit": self.norm_limit, "target_norm_limit": self.target_norm_limit}
        return self.sites.edits(only_at(edit, batch.mask_BW, **limits))


def _fits(lengths: Sequence[int]) -> bool:
    positions = len(lengths) * max(lengths)
    return positions <= BATCH_TOKENS and positions - sum(lengths) <= PADDING_SHARE * positions


def token_kl(clean_BWV: Float[Tensor, "B W V"], edited_BWV: Float[Tensor, "B W V"]) -> Float[Tensor, "B W"]:
    """KL(clean ‖ edited) at each position in nats, from log-probabilities."""
    return (clean_BWV.exp() * (clean_BWV - edited_BWV)).sum(-1)
