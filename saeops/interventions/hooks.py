"""Edits of a site's activations: steer, clamp, ablate, project out.

Each gives a function to hand to a model's forward pass. Directions have unit
norm, so that an amount is a length in the model's own units.

# B window, W position in a window, D d_model, K direction
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saeops.activations.windows import norm_mask
from saeops.sae.canonical import Sae

Edit = Callable[[Tensor], Tensor]
"""Float[Tensor, "B W D"] to the same shape."""


def steer(direction_D: Float[Tensor, " D"], amount: float) -> Edit:
    """h + amount · direction, at every position."""
    return lambda h_BWD: h_BWD + amount * direction_D.to(h_BWD.device)


def clamp(sae: Sae, latent: int, target: float, *, along: Float[Tensor, " D"] | None = None) -> Edit:
    """h + (target − f) · d: the latent reads `target`, and what the SAE does not explain stays.

    f is the latent's activation at each position, d its decoder row.

    Args:
        along: another unit direction in the place of d: the control that moves as far, elsewhere.
    """
    direction_D = sae.W_dec[latent] if along is None else along

    def edit(h_BWD: Tensor) -> Tensor:
        f_BW = latent_activation(sae, h_BWD, latent)
        return h_BWD + (target - f_BW)[..., None] * direction_D.to(h_BWD.device)

    return edit


def ablate(sae: Sae, latent: int, *, along: Float[Tensor, " D"] | None = None) -> Edit:
    """h − f · d: `clamp` to 0; where the latent is silent nothing changes."""
    return clamp(sae, latent, 0.0, along=along)


def project_out(directions_KD: Float[Tensor, "K D"]) -> Edit:
    """(I − P) h: nothing of h is left in the span of the directions, which need not be orthogonal."""
    basis_DK = torch.linalg.qr(directions_KD.T).Q
    return lambda h_BWD: h_BWD - (h_BWD @ basis_DK.to(h_BWD.device)) @ basis_DK.T.to(h_BWD.device)


def only_at(edit: Edit, mask_BW: Bool[Tensor, "B W"], *, norm_limit: float | None) -> Edit:
    """The edit, where the token policy counts a position; attention sinks and padding stay as they are."""

    def masked(h_BWD: Tensor) -> Tensor:
        counts_BW = mask_BW.to(h_BWD.device) & norm_mask(h_BWD, norm_limit)
        return torch.where(counts_BW[..., None], edit(h_BWD), h_BWD)

    return masked


def latent_activation(sae: Sae, h_BWD: Float[Tensor, "B W D"], latent: int) -> Float[Tensor, "B W"]:
    """One latent's activation at each position, in competition with all others where the SAE has it so."""
    codes = sae.encode(h_BWD.reshape(-1, h_BWD.shape[-1]).to(sae.W_enc.device))
    mine = codes.latent == latent
    f_T = codes.value.new_zeros(codes.tokens)
    f_T[codes.rows()[mine]] = codes.value[mine]
    return f_T.reshape(h_BWD.shape[:-1]).to(h_BWD)


def random_directions(count: int, width: int, *, generator: torch.Generator) -> Float[Tensor, "K D"]:
    """Unit directions drawn evenly from the sphere."""
    drawn_KD = torch.randn(count, width, generator=generator)
    return drawn_KD / drawn_KD.norm(dim=1, keepdim=True)
