"""The sparse arithmetic of SAEs in plain torch operations, on CPU and CUDA.

Nothing here makes a dense tensor of T × F after the encoder's product, and
that product exists one chunk at a time. Plain dense versions of the same
formulas stand in reference.py; property tests hold the two together.

# T token, D d_model, F latent, K kept a token, N entry (one latent on one token)
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

CHUNK_TOKENS = 512
"""Tokens encoded at a time: the chunk's product then stays near the cache."""
CHUNK_VALUES = 1 << 24
"""Largest chunk, in values (64 MB of fp32)."""


@dataclass(frozen=True)
class Picked:
    """The K largest of each row, in no particular order."""

    value: Float[Tensor, "T K"]
    latent: Int[Tensor, "T K"]


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
    x_TD: Float[Tensor, "T D"], W_enc_FD: Float[Tensor, "F D"], b_enc: Float[Tensor, " F"], k: int
) -> Picked:
    """The k largest pre-activations of each token; the dense product lives one chunk at a time."""
    size = chunk_tokens(len(W_enc_FD))
    parts = [topk(torch.addmm(b_enc, chunk, W_enc_FD.t()), k) for chunk in x_TD.split(size)]
    return Picked(torch.cat([part.value for part in parts]), torch.cat([part.latent for part in parts]))


@dataclass(frozen=True)
class ByLatent:
    """A pattern's entries in order of latent: latent f owns order[offsets[f]] up to the next one."""

    order: Int[Tensor, " N"]
    offsets: Int[Tensor, " F"]


@dataclass(frozen=True)
class Pattern:
    """Which latents are computed on which tokens, in compressed rows.

    Made once a step and shared by encoder and decoder, so that its entries are
    sorted by latent once.
    """

    offsets: Int[Tensor, " T"]
    """First entry of each token."""
    latent: Int[Tensor, " N"]
    token: Int[Tensor, " N"]
    n_latents: int

    @classmethod
    def of_rows(cls, latent_TK: Int[Tensor, "T K"], *, n_latents: int) -> Self:
        """K entries on every token."""
        n_tokens, k = latent_TK.shape
        tokens = torch.arange(n_tokens, device=latent_TK.device)
        return cls(tokens * k, latent_TK.flatten(), tokens.repeat_interleave(k), n_latents)

    @cached_property
    def by_latent(self) -> ByLatent:
        counts = torch.bincount(self.latent, minlength=self.n_latents)
        order = self.latent.int().sort(stable=True).indices
        return ByLatent(order, counts.cumsum(0) - counts)

    def sum_by_token(self, rows_FD: Float[Tensor, "F D"], weight: Float[Tensor, " N"]) -> Float[Tensor, "T D"]:
        """Σ over a token's entries of weight · rows[latent]."""
        return embedding_bag(self.latent, rows_FD, self.offsets, mode="sum", per_sample_weights=weight)

    def sum_by_latent(self, rows_TD: Float[Tensor, "T D"], weight: Float[Tensor, " N"]) -> Float[Tensor, "F D"]:
        """Σ over a latent's entries of weight · rows[token]: always in the same order, so always the same bits."""
        entries = self.by_latent
        return embedding_bag(
            self.token[entries.order],
            rows_TD,
            entries.offsets,
            mode="sum",
            per_sample_weights=weight[entries.order],
        )

    def dot(self, rows_TD: Float[Tensor, "T D"], rows_FD: Float[Tensor, "F D"]) -> Float[Tensor, " N"]:
        """rows_T[token] · rows_F[latent] of each entry."""
        return torch.ops.aten._embedding_bag_per_sample_weights_backward(
            rows_TD, rows_FD, self.latent, self.offsets, self.token, 0
        )


class _Encode(torch.autograd.Function):
    """ReLU of pre-activations computed elsewhere, with gradients through the pattern's entries only."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        centred_TD, W_enc_FD, _b_enc, _b_dec, pre, pattern = inputs
        ctx.save_for_backward(centred_TD, W_enc_FD, pre)
        ctx.pattern = pattern
        return pre.relu()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        centred_TD, W_enc_FD, pre = ctx.saved_tensors
        grad_pre = grad * (pre > 0)
        grad_W = ctx.pattern.sum_by_latent(centred_TD, grad_pre)
        ones_T1 = centred_TD.new_ones(len(centred_TD), 1)
        grad_b = ctx.pattern.sum_by_latent(ones_T1, grad_pre).squeeze(1)
        # Every pre-activation holds −b_dec · w: the sum over tokens is already in the bias's gradient.
        return None, grad_W, grad_b, -(grad_b @ W_enc_FD), None, None


class _Decode(torch.autograd.Function):
    """Σ value · W_dec[latent] over each token's entries."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, W_dec_FD: Tensor, pattern: Pattern) -> Tensor:
        ctx.save_for_backward(value, W_dec_FD)
        ctx.pattern = pattern
        return pattern.sum_by_token(W_dec_FD, value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[Tensor | None, ...]:
        value, W_dec_FD = ctx.saved_tensors
        grad_TD = grad_TD.contiguous()
        grad_value = ctx.pattern.dot(grad_TD, W_dec_FD)
        return grad_value, ctx.pattern.sum_by_latent(grad_TD, value), None


def encode_at(
    centred_TD: Float[Tensor, "T D"],
    W_enc_FD: Float[Tensor, "F D"],
    b_enc: Float[Tensor, " F"],
    b_dec: Float[Tensor, " D"],
    *,
    pre: Float[Tensor, " N"],
    pattern: Pattern,
) -> Float[Tensor, " N"]:
    """relu((x − b_dec) W_encᵀ + b_enc) at the pattern's entries, differentiable in the weights, not in x.

    `centred_TD` is x − b_dec, and `pre` holds the pre-activations, which whoever chose the entries had
    to compute anyway.
    """
    return _Encode.apply(centred_TD, W_enc_FD, b_enc, b_dec, pre, pattern)


def decode_at(
    value: Float[Tensor, " N"], W_dec_FD: Float[Tensor, "F D"], pattern: Pattern
) -> Float[Tensor, "T D"]:
    """f W_dec for codes given as a pattern with values, differentiable in both."""
    return _Decode.apply(value, W_dec_FD, pattern)
