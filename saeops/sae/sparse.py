"""Sparse codes as patterns of entries, and the products training needs of them, on CPU and CUDA.

Nothing here makes a dense tensor of T × F: decoding, the gradients of the
values and of both weight matrices all run over the entries, sorted by latent
where sums are over tokens. Plain dense versions of the same formulas stand in
reference.py; property tests hold the two together.

# R row (a token, or a token's share of one prefix), D d_model, F latent, N entry (one latent on one row)
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from saeops.sae.native.library import for_tensors


@dataclass(frozen=True)
class Sums:
    """Weighted sums by latent, and the sums of the weights."""

    rows_FD: Float[Tensor, "F D"]
    weight: Float[Tensor, " F"]


@dataclass(frozen=True)
class ByLatent:
    """A pattern's entries in order of latent: latent f owns order[offsets[f]] up to order[offsets[f + 1]]."""

    order: Int[Tensor, " N"]
    offsets: Int[Tensor, " F+1"]


@dataclass(frozen=True)
class Pattern:
    """Which latents are computed on which rows, in compressed rows; 32-bit integers.

    Made once a step and shared by encoder and decoder, so that its entries are
    sorted by latent once.
    """

    offsets: Int[Tensor, " R+1"]
    """Row r owns entries offsets[r] to offsets[r + 1]."""
    latent: Int[Tensor, " N"]
    n_latents: int

    @classmethod
    def of_rows(cls, latent_RK: Int[Tensor, "R K"], *, n_latents: int) -> Self:
        """K entries on every row."""
        n_rows, k = latent_RK.shape
        offsets = torch.arange(0, n_rows * k + 1, k, device=latent_RK.device, dtype=torch.int32)
        return cls(offsets, latent_RK.flatten().int(), n_latents)

    @classmethod
    def of_entries(cls, row: Int[Tensor, " N"], latent: Int[Tensor, " N"], *, n_rows: int, n_latents: int) -> Self:
        """Entries already in order of row."""
        return cls(offsets_of(torch.bincount(row, minlength=n_rows)), latent.int(), n_latents)

    @property
    def rows(self) -> int:
        """R."""
        return len(self.offsets) - 1

    @cached_property
    def row(self) -> Int[Tensor, " N"]:
        """The row of each entry."""
        rows = torch.arange(self.rows, device=self.offsets.device, dtype=torch.int32)
        return rows.repeat_interleave(self.offsets.diff(), output_size=len(self.latent))

    @cached_property
    def by_latent(self) -> ByLatent:
        native = for_tensors()
        if native is not None and self.latent.device.type == "cpu":
            return ByLatent(*native.by_latent(self.latent, self.n_latents))
        order = self.latent.sort(stable=True).indices.int()
        return ByLatent(order, offsets_of(torch.bincount(self.latent, minlength=self.n_latents)))

    def sum_by_row(self, rows_FD: Float[Tensor, "F D"], weight: Float[Tensor, " N"]) -> Float[Tensor, "R D"]:
        """Σ over a row's entries of weight · rows[latent]."""
        if (native := for_tensors(rows_FD, weight)) is not None:
            return native.sum_by_row(self.offsets, self.latent, weight, rows_FD)
        return embedding_bag(self.latent, rows_FD, self.offsets[:-1], mode="sum", per_sample_weights=weight)

    def sum_by_latent(self, rows_RD: Float[Tensor, "R D"], weight: Float[Tensor, " N"]) -> Sums:
        """Σ over a latent's entries of weight · rows[row]: always in the same order, so always the same bits."""
        entries = self.by_latent
        if (native := for_tensors(rows_RD, weight)) is not None:
            return Sums(*native.sum_by_latent(entries.offsets, entries.order, self.row, weight, rows_RD))
        weight = weight[entries.order]
        row = self.row[entries.order]
        starts = entries.offsets[:-1]
        ones_R1 = rows_RD.new_ones(len(rows_RD), 1)
        return Sums(
            embedding_bag(row, rows_RD, starts, mode="sum", per_sample_weights=weight),
            embedding_bag(row, ones_R1, starts, mode="sum", per_sample_weights=weight).squeeze(1),
        )

    def dot(self, rows_RD: Float[Tensor, "R D"], rows_FD: Float[Tensor, "F D"]) -> Float[Tensor, " N"]:
        """rows_R[row] · rows_F[latent] of each entry."""
        if (native := for_tensors(rows_RD, rows_FD)) is not None:
            return native.dot(self.offsets, self.latent, rows_RD, rows_FD)
        return torch.ops.aten._embedding_bag_per_sample_weights_backward(
            rows_RD, rows_FD, self.latent, self.offsets[:-1], self.row, 0
        )


def offsets_of(counts: Int[Tensor, " R"]) -> Int[Tensor, " R+1"]:
    """Where each row's entries begin, and where the last ones end."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()


class _Encode(torch.autograd.Function):
    """Pre-activations computed elsewhere, with gradients through the pattern's entries only."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        x_RD, _W_enc_FD, _b_enc, pre, pattern = inputs
        ctx.save_for_backward(x_RD)
        ctx.pattern = pattern
        return pre.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x_RD,) = ctx.saved_tensors
        sums = ctx.pattern.sum_by_latent(x_RD, grad.contiguous())
        return None, sums.rows_FD, sums.weight, None, None


class _Decode(torch.autograd.Function):
    """Σ value · W_dec[latent] over each row's entries."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, W_dec_FD: Tensor, pattern: Pattern) -> Tensor:
        ctx.save_for_backward(value, W_dec_FD)
        ctx.pattern = pattern
        return pattern.sum_by_row(W_dec_FD, value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_RD: Tensor) -> tuple[Tensor | None, ...]:
        value, W_dec_FD = ctx.saved_tensors
        grad_RD = grad_RD.contiguous()
        grad_value = ctx.pattern.dot(grad_RD, W_dec_FD)
        # A decoder may be frozen: a gated SAE's is, where its gate is taught.
        rows_FD = ctx.pattern.sum_by_latent(grad_RD, value).rows_FD if ctx.needs_input_grad[1] else None
        return grad_value, rows_FD, None


def encode_at(
    x_RD: Float[Tensor, "R D"],
    W_enc_FD: Float[Tensor, "F D"],
    b_enc: Float[Tensor, " F"],
    *,
    pre: Float[Tensor, " N"],
    pattern: Pattern,
) -> Float[Tensor, " N"]:
    """x W_encᵀ + b_enc at the pattern's entries, differentiable in the weights, not in x.

    `pre` holds these values, which whoever chose the entries had to compute anyway.
    """
    return _Encode.apply(x_RD, W_enc_FD, b_enc, pre, pattern)


def decode_at(
    value: Float[Tensor, " N"], W_dec_FD: Float[Tensor, "F D"], pattern: Pattern
) -> Float[Tensor, "R D"]:
    """f W_dec for codes given as a pattern with values, differentiable in both."""
    return _Decode.apply(value, W_dec_FD, pattern)


@dataclass(frozen=True)
class Reconstruction:
    """How well codes give their target back."""

    squared_error: Float[Tensor, ""]
    """Σ (y − ŷ)² over rows and dimensions; differentiable."""
    residual_RD: Float[Tensor, "R D"]
    """y − ŷ, without gradient."""


def reconstruct_at(
    value: Float[Tensor, " N"],
    W_dec_FD: Float[Tensor, "F D"],
    b_dec: Float[Tensor, " D"],
    y_RD: Float[Tensor, "R D"],
    pattern: Pattern,
) -> Reconstruction:
    """The squared error of y beside f W_dec + b_dec, differentiable in values, W_dec and b_dec."""
    if for_tensors(value, W_dec_FD, b_dec, y_RD) is not None:
        return Reconstruction(*_Reconstruct.apply(value, W_dec_FD, b_dec, y_RD, pattern))
    residual_RD = y_RD - decode_at(value, W_dec_FD, pattern) - b_dec
    return Reconstruction(residual_RD.square().sum(), residual_RD.detach())


class _Reconstruct(torch.autograd.Function):
    """`reconstruct_at` in one pass over each row's decoder rows, the values' gradient included."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        value, W_dec_FD, b_dec, y_RD, pattern = inputs
        native = for_tensors(value, W_dec_FD, b_dec, y_RD)
        assert native is not None
        made = native.reconstruct(pattern.offsets, pattern.latent, value, W_dec_FD, b_dec, y_RD)
        ctx.save_for_backward(value, made.residual_RD, made.along)
        ctx.pattern = pattern
        ctx.mark_non_differentiable(made.residual_RD)
        # Rows are added in pairs: a sum of thousands of fp32 in order would lose digits.
        return made.squared_R.sum(), made.residual_RD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _residual: Tensor) -> tuple[Tensor | None, ...]:
        value, residual_RD, along = ctx.saved_tensors
        slope = -2 * grad
        if not ctx.needs_input_grad[1]:
            return along * slope, None, residual_RD.sum(0) * slope, None, None
        rows_FD = ctx.pattern.sum_by_latent(residual_RD, value * slope).rows_FD
        return along * slope, rows_FD, residual_RD.sum(0) * slope, None, None


class _GatherRows(torch.autograd.Function):
    """Some rows of a matrix; the gradient names only these."""

    @staticmethod
    def forward(ctx: Any, matrix_FD: Tensor, rows_A: Tensor) -> Tensor:
        ctx.save_for_backward(rows_A)
        ctx.shape = matrix_FD.shape
        return matrix_FD[rows_A]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (rows_A,) = ctx.saved_tensors
        return torch.sparse_coo_tensor(
            rows_A[None], grad, ctx.shape, is_coalesced=True, check_invariants=False
        ), None


def gather_rows(matrix: Float[Tensor, "F ..."], rows_A: Int[Tensor, " A"]) -> Float[Tensor, "A ..."]:
    """matrix[rows], for rows that are all different; its gradient makes no second matrix of zeros."""
    return _GatherRows.apply(matrix, rows_A)
