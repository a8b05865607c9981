"""The compiled kernels as functions on tensors.

Off until `enable` is called; where they cannot be built everything goes on in
plain torch. Each function takes contiguous fp32 CPU tensors and int32 indices,
which `for_tensors` checks; what each computes is documented where it is used.

# T token, R row, D width, F latent, N entry, K kept a row
"""

import ctypes
from ctypes import c_float, c_int32, c_int64, c_uint64, c_void_p
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saeops.sae.native.build import NotBuilt, build

SIGNATURES: dict[str, tuple[type, ...]] = {
    "topk": (c_void_p, c_int64, c_int64, c_int64, c_void_p, c_void_p),
    "count_above": (c_void_p, c_int64, c_int64, c_void_p, c_void_p),
    "fill_above": (c_void_p, c_int64, c_int64, c_void_p, c_void_p, c_void_p, c_void_p),
    "by_latent": (c_void_p, c_int64, c_int64, c_void_p, c_void_p),
    "sum_by_row": (c_void_p, c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_void_p),
    "sum_by_latent": (*(c_void_p,) * 5, c_int64, c_int64, c_void_p, c_void_p),
    "dot": (*(c_void_p,) * 4, c_int64, c_int64, c_void_p),
    "reconstruct": (*(c_void_p,) * 6, c_int64, c_int64, c_void_p, c_void_p, c_void_p),
    "squared_norms": (c_void_p, c_void_p, c_int64, c_int64, c_void_p),
    "has_search": (),
    "pack_latents": (c_void_p, c_void_p, *(c_int64,) * 3, c_int32, *(c_void_p,) * 4),
    "pack_tokens": (c_void_p, c_void_p, *(c_int64,) * 3, c_int32, *(c_void_p,) * 5),
    "search_topk": (*(c_void_p,) * 13, *(c_int64,) * 4, c_int32, c_int64, c_int64, *(c_void_p,) * 3),
    "keep_strongest": (
        *(*(c_void_p,) * 5, c_int64, c_int64, c_int64, c_uint64, c_void_p, c_void_p, c_void_p),
        *(c_int64, c_void_p, c_void_p, c_void_p) * 2,
    ),
    "adam": (*(c_void_p,) * 4, c_int64, c_int64, *(c_float,) * 4, c_int64, c_float, c_int32),
}

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of mallopt(3)."""
KEPT_BYTES = (1 << 31) - 1
PANEL = 64
"""Latents that the search takes together."""


@dataclass(frozen=True)
class Residual:
    """What `Library.reconstruct` gives."""

    residual_RD: Float[Tensor, "R D"]
    along: Float[Tensor, " N"]
    """residual · W[latent] of each entry."""
    squared_R: Float[Tensor, " R"]


@dataclass(frozen=True)
class Rounded:
    """Rows rounded to bytes or bfloat16, in lanes of 32 bits, and what rounding does to their products."""

    lanes: Int[Tensor, "..."]
    scale: Float[Tensor, " rows"]
    """What one unit stands for (of tokens: 1 over it); rows are filled up to whole panels, as below."""
    length: Float[Tensor, " rows"]
    rounding: Float[Tensor, " rows"]
    """Length of what rounding left out."""


@dataclass(frozen=True)
class Search:
    """What `Library.search_topk` gives."""

    value: Float[Tensor, "T K"]
    latent: Int[Tensor, "T K"]
    """Ascending."""
    unsure: Int[Tensor, " T"]
    """1 where too many latents came into question; value and latent say nothing then."""


@dataclass(frozen=True)
class Fired:
    """Codes of consecutive tokens, and where these lie; integers are int64."""

    offsets: Int[Tensor, " T+1"]
    latent: Int[Tensor, " N"]
    """Ascending within a token."""
    value: Float[Tensor, " N"]
    row: Int[Tensor, " T"]
    window: Int[Tensor, " T"]


@dataclass(frozen=True)
class Totals:
    """Firings of each latent: how many, their sum and the largest."""

    count: Int[Tensor, " F"]
    """int64."""
    sum: Float[Tensor, " F"]
    """float64."""
    largest: Float[Tensor, " F"]


@dataclass(frozen=True)
class Slots:
    """Kept firings of each latent: score (float64), row (int64) and the values round it."""

    score: Float[Tensor, "F S"]
    row: Int[Tensor, "F S"]
    shown: Float[Tensor, "F S W"]


class Library:
    """The functions of one compiled file."""

    def __init__(self, path: Path) -> None:
        handle = ctypes.CDLL(str(path))
        self._calls = {}
        for name, types in SIGNATURES.items():
            # Those of the search are there only where the processor has the instruction.
            if (call := getattr(handle, f"saeops_{name}", None)) is not None:
                call.argtypes, call.restype = types, c_int32 if name == "has_search" else None
                self._calls[name] = call
        self.has_search = bool(self._calls["has_search"]())
        """Whether the processor has the instructions that `search_topk` takes."""

    def topk(
        self, pre_TF: Float[Tensor, "T F"], k: int, value_TK: Float[Tensor, "T K"], latent_TK: Int[Tensor, "T K"]
    ) -> None:
        """The k largest of each row in order of latent, into two tensors."""
        self._call("topk", pre_TF, *pre_TF.shape, k, latent_TK, value_TK)

    def count_above(self, pre_TF: Float[Tensor, "T F"], floor: Float[Tensor, " F"]) -> Int[Tensor, " T"]:
        """Values of each row above the floors."""
        count = torch.empty(len(pre_TF), dtype=torch.int32)
        self._call("count_above", pre_TF, *pre_TF.shape, floor, count)
        return count

    def fill_above(
        self,
        pre_TF: Float[Tensor, "T F"],
        floor: Float[Tensor, " F"],
        offsets: Int[Tensor, " T+1"],
        latent: Int[Tensor, " N"],
        value: Float[Tensor, " N"],
    ) -> None:
        """These values and their latents, row by row."""
        self._call("fill_above", pre_TF, *pre_TF.shape, floor, offsets, latent, value)

    def by_latent(self, latent: Int[Tensor, " N"], n_latents: int) -> tuple[Tensor, Tensor]:
        """Order and offsets of the entries sorted by latent."""
        order = torch.empty(len(latent), dtype=torch.int32)
        offsets = torch.empty(n_latents + 1, dtype=torch.int32)
        self._call("by_latent", latent, len(latent), n_latents, offsets, order)
        return order, offsets

    def sum_by_row(
        self, offsets: Tensor, latent: Tensor, weight: Tensor, rows_FD: Float[Tensor, "F D"]
    ) -> Float[Tensor, "R D"]:
        """Σ over a row's entries of weight · rows[latent]."""
        out = rows_FD.new_empty(len(offsets) - 1, rows_FD.shape[1])
        self._call("sum_by_row", offsets, latent, weight, rows_FD, *out.shape, out)
        return out

    def sum_by_latent(
        self, offsets: Tensor, order: Tensor, row: Tensor, weight: Tensor, rows_RD: Float[Tensor, "R D"]
    ) -> tuple[Tensor, Tensor]:
        """Σ over a latent's entries of weight · rows[row], and of weight."""
        out = rows_RD.new_empty(len(offsets) - 1, rows_RD.shape[1])
        total = rows_RD.new_empty(len(out))
        self._call("sum_by_latent", offsets, order, row, weight, rows_RD, *out.shape, out, total)
        return out, total

    def dot(
        self, offsets: Tensor, latent: Tensor, rows_RD: Float[Tensor, "R D"], rows_FD: Float[Tensor, "F D"]
    ) -> Float[Tensor, " N"]:
        """rows_R[row] · rows_F[latent] of each entry."""
        out = rows_RD.new_empty(len(latent))
        self._call("dot", offsets, latent, rows_RD, rows_FD, *rows_RD.shape, out)
        return out

    def reconstruct(
        self, offsets: Tensor, latent: Tensor, value: Tensor, W_FD: Tensor, b: Tensor, y_RD: Tensor
    ) -> Residual:
        """y − Σ value · W[latent] − b, its squares, and its product with each entry's row."""
        made = Residual(torch.empty_like(y_RD), torch.empty_like(value), y_RD.new_empty(len(y_RD)))
        outputs = (made.residual_RD, made.along, made.squared_R)
        self._call("reconstruct", offsets, latent, value, W_FD, b, y_RD, *y_RD.shape, *outputs)
        return made

    def squared_norms(self, gradient: Tensor, unit_rows: Tensor | None) -> Float[Tensor, " F"]:
        """‖gradient‖² of each row, without its part along a unit row where these are given."""
        gradient_FD = gradient.view(-1, gradient.shape[-1])
        out = gradient.new_empty(len(gradient_FD))
        self._call("squared_norms", gradient, unit_rows, *gradient_FD.shape, out)
        return out

    def adam(
        self,
        parameter: Tensor,
        gradient: Tensor,
        first: Tensor,
        second: Tensor,
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        step: int,
        scale: float,
        unit_rows: bool,
    ) -> None:
        """One step of Adam in place, and of the constraint on unit rows."""
        rows, width = parameter.view(-1, parameter.shape[-1]).shape
        tensors = (parameter, gradient, first, second)
        self._call("adam", *tensors, rows, width, lr, *betas, eps, step, scale, int(unit_rows))

    def keep_strongest(self, fired: Fired, totals: Totals, top: Slots, drawn: Slots, *, seed: int) -> None:
        """Add whole windows of firings to what is kept, in place."""
        sizes = (len(fired.row), len(totals.count), top.shown.shape[2] // 2, seed)
        kept = [part for each in (top, drawn) for part in (each.row.shape[1], each.score, each.row, each.shown)]
        tensors = (fired.offsets, fired.latent, fired.value, fired.row, fired.window)
        self._call("keep_strongest", *tensors, *sizes, totals.count, totals.sum, totals.largest, *kept)

    def search_topk(
        self,
        x_TD: Float[Tensor, "T D"],
        W_FD: Float[Tensor, "F D"],
        b: Float[Tensor, " F"],
        *,
        stretch: Float[Tensor, " D"],
        candidates: int,
        k: int,
        rounded: Rounded | None = None,
    ) -> Search:
        """The k largest: of all latents, by bfloat16; or of so many candidates (not 0), by bytes.

        Args:
            rounded: what `rounded_latents` gives of W, the stretch and the same kind; None: made now.
        """
        n_tokens, width = x_TD.shape
        as_bytes = int(candidates > 0)
        latents = rounded or self.rounded_latents(W_FD, stretch=stretch, as_bytes=candidates > 0)
        lanes = _lanes(width, as_bytes=candidates > 0)
        tokens = Rounded(torch.empty(n_tokens, lanes, dtype=torch.int32), *torch.empty(3, n_tokens))
        offset = torch.empty(n_tokens, dtype=torch.int32)
        made = (tokens.lanes, tokens.scale, tokens.length, tokens.rounding, offset)
        self._call("pack_tokens", x_TD, stretch, n_tokens, width, lanes, as_bytes, *made)
        bias = torch.nn.functional.pad(b, (0, len(latents.scale) - len(b)), value=-torch.inf)
        found = Search(
            x_TD.new_empty(n_tokens, k),
            torch.empty(n_tokens, k, dtype=torch.int32),
            torch.empty(n_tokens, dtype=torch.uint8),
        )
        panels = (latents.lanes, latents.scale, latents.length, latents.rounding, bias)
        sizes = (n_tokens, len(W_FD), width, lanes, as_bytes, candidates, k)
        self._call("search_topk", x_TD, W_FD, b, *made, *panels, *sizes, found.latent, found.value, found.unsure)
        return found

    def rounded_latents(
        self, W_FD: Float[Tensor, "F D"], *, stretch: Float[Tensor, " D"], as_bytes: bool
    ) -> Rounded:
        """Rows of W, each dimension times stretch, as `search_topk` reads them."""
        n_latents, width = W_FD.shape
        lanes = _lanes(width, as_bytes=as_bytes)
        padded = -(-n_latents // PANEL) * PANEL
        made = Rounded(torch.empty(padded * lanes, dtype=torch.int32), *torch.zeros(3, padded))
        outputs = (made.lanes, made.scale, made.length, made.rounding)
        self._call("pack_latents", W_FD, stretch, n_latents, width, lanes, int(as_bytes), *outputs)
        return made

    def _call(self, name: str, *arguments: Tensor | float | None) -> None:
        self._calls[name](*(a.data_ptr() if isinstance(a, Tensor) else a for a in arguments))


def _lanes(width: int, *, as_bytes: bool) -> int:
    return -(-width // (4 if as_bytes else 2))


_library: Library | None = None


def enable(folder: Path) -> Library | NotBuilt:
    """Use compiled kernels from now on in this process, from `folder`, where they are built if need be."""
    global _library
    if _library is None:
        built = build(folder)
        if isinstance(built, NotBuilt):
            return built
        try:
            _library = Library(built)
            _keep_memory()
        except OSError as error:
            return NotBuilt(f"{built.name} cannot be loaded: {error}")
    return _library


def _keep_memory() -> None:
    """Have glibc's allocator keep what is freed, up to `KEPT_BYTES`, instead of handing it back to the kernel.

    Gradients are as large as the weights and made anew in every step: given back, they cost tens of
    thousands of page faults a step, a tenth of its time.
    """
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(M_MMAP_THRESHOLD, 1 << 30)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def disable() -> None:
    """Go back to plain torch."""
    global _library
    _library = None


def for_tensors(*tensors: Tensor) -> Library | None:
    """The kernels, if they are enabled and can take these tensors: fp32, contiguous, on the CPU."""
    fits = all(t.dtype == torch.float32 and t.device.type == "cpu" and t.is_contiguous() for t in tensors)
    return _library if fits else None
