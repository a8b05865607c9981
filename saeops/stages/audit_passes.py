"""An audit's forward passes: the same held-out documents through both models, the SAE on each.

# B window, W position in a window, T token, U document
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from saeops.activations.windows import (
    Window,
    cut_windows,
    document_positions,
    norm_limit,
    norm_mask,
    pad_windows,
    position_mask,
    prepended,
    window_lengths,
)
from saeops.diagnostics.fidelity import FidelitySums, Pass, by_document, fidelity_sums
from saeops.diagnostics.splicing import window_batches
from saeops.drift.audit.documents import HeldOut
from saeops.drift.audit.part import Read
from saeops.errors import NonFinite
from saeops.ports import LanguageModel
from saeops.sae.canonical import Sae

Advance = Callable[[int], object]
SAE = "sae"


@dataclass(frozen=True)
class Reading:
    """How documents are cut for the models: as when the dictionary was made."""

    context_size: int
    batch_windows: int
    windows: int
    """Read of each document."""

    def cut(self, document: int, text: str, model: LanguageModel, sae: Sae) -> list[Window]:
        """A document's first windows."""
        bos = prepended(sae.meta.policy, model.bos_id)
        windows = cut_windows(document, model.encode(text), context_size=self.context_size, bos=bos)
        return windows[: self.windows]


@dataclass(frozen=True)
class Applied:
    """The dictionary on one model, with the token policy's limits there."""

    model: LanguageModel
    sae: Sae
    limits: tuple[float | None, float | None]
    """Largest norms that count, at the input and at the target site."""

    @classmethod
    def of(cls, model: LanguageModel, sae: Sae, windows: Sequence[Window], *, own: bool) -> "Applied":
        """`own`: the model that the SAE was made from, whose limits it records; else from these windows' norms."""
        meta, policy = sae.meta, sae.meta.policy
        recorded = (meta.norm_limit, meta.target_norm_limit if meta.sites.transcodes else meta.norm_limit)
        if policy.max_norm_ratio is None or (own and None not in recorded):
            return cls(model, sae, recorded if own else (None, None))
        ids_BW = pad_windows(windows)
        bos = prepended(policy, model.bos_id)
        counts = position_mask(ids_BW, window_lengths(windows), policy, model.special_ids, bos=bos)
        x_BWD, y_BWE = cls(model, sae, (None, None)).capture(ids_BW)
        return cls(model, sae, (norm_limit(x_BWD, counts, policy), norm_limit(y_BWE, counts, policy)))

    def capture(self, ids_BW: Tensor) -> tuple[Tensor, Tensor]:
        """Activations at the input and at the target site."""
        sites = self.sae.meta.sites
        found = self.model.capture(ids_BW, list(dict.fromkeys([sites.input, sites.target])))
        return found[sites.input].cpu(), found[sites.target].cpu()

    def counted(self, x_BWD: Tensor, y_BWE: Tensor) -> Bool[Tensor, "B W"]:
        """Where norms are within the limits."""
        return norm_mask(x_BWD, self.limits[0]) & norm_mask(y_BWE, self.limits[1])


def read_together(
    sides: Sequence[Applied], windows: Sequence[Window], reading: Reading, *, masked_by: int
) -> Iterator[list[Read]]:
    """Batches of the same tokens through several models.

    A token counts where the policy counts it and the first `masked_by` models' norms are within limits.

    Args:
        windows: consecutive ones of consecutive documents.

    Raises:
        NonFinite: a model gives NaN or infinity.
    """
    first = sides[0]
    policy, special = first.sae.meta.policy, first.model.special_ids
    bos = prepended(policy, first.model.bos_id)
    for start in range(0, len(windows), reading.batch_windows):
        batch = windows[start : start + reading.batch_windows]
        ids_BW = pad_windows(batch)
        mask_BW = position_mask(ids_BW, window_lengths(batch), policy, special, bos=bos)
        captured = [side.capture(ids_BW) for side in sides]
        for side, sites in list(zip(sides, captured, strict=True))[:masked_by]:
            mask_BW &= side.counted(*sites)
        yield [_read(side, *sites, batch, mask_BW, reading) for side, sites in zip(sides, captured, strict=True)]


def _read(
    side: Applied, x_BWD: Tensor, y_BWE: Tensor, batch: Sequence[Window], mask_BW: Tensor, reading: Reading
) -> Read:
    x_TD, y_TE = x_BWD[mask_BW], y_BWE[mask_BW]
    if not (x_TD.isfinite().all() and y_TE.isfinite().all()):
        raise NonFinite(
            f"{side.model.identity.ref} gives NaN or infinity at {side.sae.meta.sites}",
            hint="model.dtype float32 is the safe one; if it is, the model's weights are broken",
        )
    bos = prepended(side.sae.meta.policy, side.model.bos_id)
    position_BW = document_positions(batch, mask_BW.shape[1], bos=bos)
    document_B = torch.tensor([window.document for window in batch])
    step = reading.context_size - (bos is not None)
    window_B = document_B * reading.windows + torch.tensor([window.start // step for window in batch])
    codes = side.sae.encode(x_TD)
    return Read(
        document_B[:, None].expand_as(mask_BW)[mask_BW],
        position_BW[mask_BW],
        window_B[:, None].expand_as(mask_BW)[mask_BW],
        y_TE,
        side.sae.decode(codes),
        codes,
    )


def spliced(
    side: Applied, windows: Sequence[Window], others: Sequence[Applied] = (), *, advance: Advance
) -> FidelitySums:
    """What the model loses when it runs on the reconstruction.

    Args:
        others: models whose norms must be within limits too, so that the same tokens count in all.
    """
    sites, policy = side.sae.meta.sites, side.sae.meta.policy
    bos = prepended(policy, side.model.bos_id)

    def begin(ids_BW: Tensor) -> Pass:
        resumed = side.model.from_site(ids_BW, [sites.input, sites.target])
        return lambda edit: resumed.logits(sites.edits(edit))

    def mask(ids_BW: Tensor, lengths_B: Tensor, x_BWD: Tensor, y_BWE: Tensor) -> Tensor:
        counts = position_mask(ids_BW, lengths_B, policy, side.model.special_ids, bos=bos)
        counts &= side.counted(x_BWD, y_BWE).cpu()
        for other in others:
            counts &= other.counted(*other.capture(ids_BW))
        return counts

    splices = {SAE: lambda x_ND, _: side.sae.reconstruct(x_ND.cpu())}
    parts = []
    for part in fidelity_sums(begin, window_batches(windows), mask, splices):
        parts.append(part)
        advance(len(part.document))
    return by_document(parts)


def same_tokens(old: LanguageModel, new: LanguageModel, documents: Sequence[HeldOut]) -> bool:
    """Whether both models read these documents as the same token ids, specials included."""
    if (old.bos_id, old.special_ids) != (new.bos_id, new.special_ids):
        return False
    return all(old.encode(document.text) == new.encode(document.text) for document in documents)
