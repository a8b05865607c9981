"""Losses of variants whose latents fire freely: over all latents while many fire, over entries once few do.

# T token, D d_model (E of the target), F latent
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from saeops.sae.select import chunk_tokens

PROBE_TOKENS = 64
"""Tokens of a batch that tell which way is faster; a look at them costs little beside the batch."""
FEW = 1 / 32
"""Share of latents. Products over entries beat dense ones below about 3.5 %, whatever the width, on CPU."""


@dataclass(frozen=True)
class Part:
    """A loss and its figures, summed over some tokens."""

    loss: Float[Tensor, ""]
    figures: Mapping[str, Tensor]
    """Sums by name, without gradient."""


Term = Callable[[Tensor, Tensor], Part]
"""From inputs and targets of some tokens to their part."""


@torch.no_grad()
def few_fire(
    x_TD: Float[Tensor, "T D"],
    W_enc_FD: Float[Tensor, "F D"],
    b_enc: Float[Tensor, " F"],
    floor: Float[Tensor, " F"] | float,
) -> bool:
    """Whether few latents exceed the floor on the batch's first tokens; weights and batch alone decide."""
    pre_TF = torch.addmm(b_enc, x_TD[:PROBE_TOKENS], W_enc_FD.t())
    return float((pre_TF > floor).float().mean()) < FEW


def in_chunks(
    term: Term,
    x_TD: Float[Tensor, "T D"],
    y_TE: Float[Tensor, "T E"],
    *,
    parameters: Sequence[Tensor],
    n_latents: int,
) -> Part:
    """The sum of `term` over chunks of tokens, so that dense T × F tensors live one chunk at a time.

    Each chunk is differentiated as soon as it is computed; only its gradients stay.

    Args:
        term: a sum over tokens, differentiable in `parameters` alone.
    """
    names: list[str] = []
    loss, *sums = _InChunks.apply(term, x_TD, y_TE, chunk_tokens(n_latents), names, *parameters)
    return Part(loss, dict(zip(names, sums, strict=True)))


class _InChunks(torch.autograd.Function):
    """Gradients come with the forward pass; backward only scales them."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        term, x_TD, y_TE, size, names, *parameters = inputs
        whole: list[Tensor] = []
        gradients: list[Tensor] = []
        for x_chunk, y_chunk in zip(x_TD.split(size), y_TE.split(size), strict=True):
            with torch.enable_grad():
                part = term(x_chunk, y_chunk)
                found = torch.autograd.grad(part.loss, parameters)
            sums = [part.loss.detach(), *part.figures.values()]
            names[:] = part.figures
            whole = _added(whole, sums)
            gradients = _added(gradients, list(found))
        ctx.gradients = gradients
        ctx.mark_non_differentiable(*whole[1:])
        return tuple(whole)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        return None, None, None, None, None, *(grad * gradient for gradient in ctx.gradients)


def _added(totals: list[Tensor], more: list[Tensor]) -> list[Tensor]:
    """In place, where there is something to add to."""
    return [total.add_(one) for total, one in zip(totals, more, strict=True)] if totals else more
