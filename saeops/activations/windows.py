"""Windows: how documents are cut for the model, and which positions count.

Legend: B window, W position in a window, D d_model.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saeops.activations.policy import TokenPolicy


@dataclass(frozen=True)
class Window:
    """A consecutive piece of one document, with the prepended token in front where there is one."""

    document: int
    start: int
    """Document position of the first token that is the document's own."""
    ids: tuple[int, ...]


def prepended(policy: TokenPolicy, bos_id: int | None) -> int | None:
    """The token put before each window, if any."""
    return bos_id if policy.prepend_bos else None


def cut_windows(document: int, tokens: Sequence[int], *, context_size: int, bos: int | None) -> list[Window]:
    """Cut a document's tokens into consecutive windows of at most `context_size` ids, `bos` included."""
    step = context_size if bos is None else context_size - 1
    front = () if bos is None else (bos,)
    return [
        Window(document, start, (*front, *tokens[start : start + step])) for start in range(0, len(tokens), step)
    ]


def pad_windows(windows: Sequence[Window]) -> Int[Tensor, "B W"]:
    """Windows as one tensor, padded on the right with token 0, which a causal model never looks back at."""
    width = max(len(window.ids) for window in windows)
    return torch.tensor([(*window.ids, *[0] * (width - len(window.ids))) for window in windows])


def window_lengths(windows: Sequence[Window]) -> Int[Tensor, " B"]:
    """How many ids of each padded window are its own."""
    return torch.tensor([len(window.ids) for window in windows])


def document_positions(windows: Sequence[Window], width: int, *, bos: int | None) -> Int[Tensor, "B W"]:
    """The document position of each window position (−1 less where a token was prepended)."""
    shift = 0 if bos is None else 1
    starts_B = torch.tensor([window.start for window in windows])
    return starts_B[:, None] + torch.arange(width)[None, :] - shift


def position_mask(
    ids_BW: Int[Tensor, "B W"],
    lengths_B: Int[Tensor, " B"],
    policy: TokenPolicy,
    special_ids: AbstractSet[int],
    *,
    bos: int | None,
) -> Bool[Tensor, "B W"]:
    """True where the policy counts a position, before norms are known.

    Padding and the prepended token never count.
    """
    at_W = torch.arange(ids_BW.shape[1])
    first = max(policy.skip_positions, 0 if bos is None else 1)
    mask_BW = (at_W[None, :] >= first) & (at_W[None, :] < lengths_B[:, None])
    if policy.mask_special and special_ids:
        mask_BW &= ~torch.isin(ids_BW, torch.tensor(sorted(special_ids)))
    return mask_BW


def norm_mask(x_BWD: Float[Tensor, "B W D"], limit: float | None) -> Bool[Tensor, "B W"]:
    """True where the activation's norm is at most `limit`; NaN passes, so that it is found and refused."""
    if limit is None:
        return torch.ones(x_BWD.shape[:2], dtype=torch.bool, device=x_BWD.device)
    return ~(x_BWD.float().norm(dim=-1) > limit)


def norm_limit(x_BWD: Float[Tensor, "B W D"], mask_BW: Bool[Tensor, "B W"], policy: TokenPolicy) -> float | None:
    """The largest norm that counts: `max_norm_ratio` × the median over the positions that count so far."""
    if policy.max_norm_ratio is None:
        return None
    return policy.max_norm_ratio * float(x_BWD[mask_BW].float().norm(dim=-1).median())
