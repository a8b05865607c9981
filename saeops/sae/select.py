"""The encoder's product, one chunk of tokens at a time, and what is kept of it.

# T token, D d_model, F latent, K kept a token, N entry
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saeops.sae.native.library import Library, Rounded, for_tensors
from saeops.sae.search import search_all, worth_it
from saeops.sae.sparse import Pattern, offsets_of

CHUNK_TOKENS = 512
"""Tokens encoded at a time: the chunk's product then stays near the cache."""
CHUNK_VALUES = 1 << 24
"""Largest chunk, in values (64 MB of fp32)."""


@dataclass(frozen=True)
class Picked:
    """The K largest of each row, in no particular order."""

    value: Float[Tensor, "T K"]
    latent: Int[Tensor, "T K"]


@dataclass(frozen=True)
class Entries:
    """Pre-activations that were kept, token by token, latents ascending within a token."""

    pattern: Pattern
    pre: Float[Tensor, " N"]


def chunk_tokens(n_latents: int) -> int:
    """Tokens to encode at a time."""
    return max(1, min(CHUNK_TOKENS, CHUNK_VALUES // n_latents))


def topk(pre_TF: Float[Tensor, "T F"], k: int) -> Picked:
    """The exact k largest of each row, in two stages where that is less work.

    Cut the latents into groups and take the k groups with the largest maxima:
    they hold the k largest values, because each group left out has k maxima
    that are no smaller above it. Among equal values any may be kept, as with
    torch.topk; the same input gives the same choice.
    """
    n_latents = pre_TF.shape[1]
    size = round(math.sqrt(n_latents / k))
    if size < 4:
        return Picked(*pre_TF.topk(k, dim=1, sorted=False))
    groups = n_latents // size
    # Strided groups (members g, g + groups, …): the maxima are then taken over whole vectors.
    grouped = pre_TF[:, : size * groups].unflatten(1, (size, groups))
    group_TK = grouped.amax(1).topk(k, dim=1, sorted=False).indices
    members = torch.arange(0, size * groups, groups, device=pre_TF.device)
    candidates = (group_TK[:, :, None] + members).flatten(1)
    # The remainder that fills no group always competes.
    rest = torch.arange(size * groups, n_latents, device=pre_TF.device).expand(len(pre_TF), -1)
    candidates = torch.cat([candidates, rest], dim=1)
    value, place = pre_TF.gather(1, candidates).topk(k, dim=1, sorted=False)
    return Picked(value, candidates.gather(1, place))


@torch.no_grad()
def encode_topk(
    x_TD: Float[Tensor, "T D"],
    W_enc_FD: Float[Tensor, "F D"],
    b_enc: Float[Tensor, " F"],
    k: int,
    *,
    rounded: Rounded | None = None,
) -> Picked:
    """The k largest pre-activations of each token, exactly; no dense T × F tensor is made.

    Args:
        rounded: of W_enc, kept from an earlier call (`rounded_for_all`); None: made where it is needed.
    """
    native = kernels_for(x_TD, W_enc_FD, b_enc)
    if native is None:
        parts = [
            topk(torch.addmm(b_enc, chunk, W_enc_FD.t()).to(x_TD.dtype), k)
            for chunk in x_TD.split(chunk_tokens(len(W_enc_FD)))
        ]
        return Picked(torch.cat([part.value for part in parts]), torch.cat([part.latent for part in parts]))
    if not worth_it(native, n_latents=len(W_enc_FD), k=k):
        return _dense_topk(native, x_TD, W_enc_FD, b_enc, k)
    found = search_all(native, x_TD, W_enc_FD, b_enc, k, rounded=rounded)
    unsure = found.unsure.nonzero().squeeze(1)
    if len(unsure):
        settled = _dense_topk(native, x_TD[unsure], W_enc_FD, b_enc, k)
        found.value[unsure], found.latent[unsure] = settled.value, settled.latent
    return Picked(found.value, found.latent)


def _dense_topk(native: Library, x_TD: Tensor, W_enc_FD: Tensor, b_enc: Tensor, k: int) -> Picked:
    """By the dense product, one chunk of tokens at a time."""
    size = chunk_tokens(len(W_enc_FD))
    picked = Picked(x_TD.new_empty(len(x_TD), k), torch.empty(len(x_TD), k, dtype=torch.int32))
    room = x_TD.new_empty(min(size, len(x_TD)), len(W_enc_FD))
    for start in range(0, len(x_TD), size):
        chunk = x_TD[start : start + size]
        pre_TF = torch.addmm(b_enc, chunk, W_enc_FD.t(), out=room[: len(chunk)])
        stop = start + len(chunk)
        native.topk(pre_TF, k, picked.value[start:stop], picked.latent[start:stop])
    return picked


@torch.no_grad()
def encode_above(
    x_TD: Float[Tensor, "T D"],
    W_enc_FD: Float[Tensor, "F D"],
    b_enc: Float[Tensor, " F"],
    floor: Float[Tensor, " F"] | float,
) -> Entries:
    """Every pre-activation above its latent's floor; the dense product lives one chunk at a time."""
    if not isinstance(floor, Tensor):
        floor = b_enc.new_full((len(b_enc),), floor)
    if (native := kernels_for(x_TD, W_enc_FD, b_enc, floor)) is not None:
        return _encode_above_native(native, x_TD, W_enc_FD, b_enc, floor)
    rows, latents, values = [], [], []
    start = 0
    for chunk in x_TD.split(chunk_tokens(len(W_enc_FD))):
        pre_TF = torch.addmm(b_enc, chunk, W_enc_FD.t())
        row, latent = (pre_TF > floor).nonzero(as_tuple=True)
        values.append(pre_TF[row, latent])
        rows.append(row + start)
        latents.append(latent)
        start += len(chunk)
    pattern = Pattern.of_entries(torch.cat(rows), torch.cat(latents), n_rows=len(x_TD), n_latents=len(W_enc_FD))
    return Entries(pattern, torch.cat(values).to(x_TD.dtype))


def kernels_for(*tensors: Tensor) -> Library | None:
    """The compiled kernels, which take an fp32 product: where another precision is asked for, torch makes it."""
    return None if torch.is_autocast_enabled("cpu") else for_tensors(*tensors)


def _encode_above_native(native: Library, x_TD: Tensor, W_enc_FD: Tensor, b_enc: Tensor, floor: Tensor) -> Entries:
    size = chunk_tokens(len(W_enc_FD))
    room = x_TD.new_empty(min(size, len(x_TD)), len(W_enc_FD))
    counts, latents, values = [], [], []
    for chunk in x_TD.split(size):
        pre_TF = torch.addmm(b_enc, chunk, W_enc_FD.t(), out=room[: len(chunk)])
        count = native.count_above(pre_TF, floor)
        offsets = offsets_of(count)
        n_entries = int(offsets[-1])
        latent, value = torch.empty(n_entries, dtype=torch.int32), x_TD.new_empty(n_entries)
        native.fill_above(pre_TF, floor, offsets, latent, value)
        counts.append(count)
        latents.append(latent)
        values.append(value)
    pattern = Pattern(offsets_of(torch.cat(counts)), torch.cat(latents), len(W_enc_FD))
    return Entries(pattern, torch.cat(values))
