"""Edits of a site's activations: steer, clamp, ablate, project out.

Each gives a function (x, h) → h for `Sites.edits`, which hands it to a model's
forward pass: x are the activations that the SAE reads, h those that change, at
one and the same site unless it is a transcoder. Directions have unit norm, so
that an amount is a length in the model's own units.

# B window, W position in a window, D d_model, E width of h (D in an autoencoder), K direction
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saeops.activations.sites import PairEdit
from saeops.activations.windows import norm_mask
from saeops.sae.canonical import Sae


def steer(direction_E: Float[Tensor, " E"], amount: float) -> PairEdit:
    """h + amount · direction, at every position."""
    return lambda _, h_BWE: h_BWE + amount * direction_E.to(h_BWE.device)


def clamp(sae: Sae, latent: int, target: float, *, along: Float[Tensor, " E"] | None = None) -> PairEdit:
    """h + (target − f) · d: the latent counts as `target`, and what the SAE does not explain stays.

    f is the latent's activation on x at each position, d its decoder row.

    Args:
        along: another unit direction in the place of d: the control that moves as far, elsewhere.
    """
    direction_E = sae.W_dec[latent] if along is None else along

    def edit(x_BWD: Tensor, h_BWE: Tensor) -> Tensor:
        f_BW = latent_activation(sae, x_BWD, latent)
        return h_BWE + (target - f_BW)[..., None] * direction_E.to(h_BWE.device)

    return edit


def ablate(sae: Sae, latent: int, *, along: Float[Tensor, " E"] | None = None) -> PairEdit:
    """h − f · d: `clamp` to 0; where the latent is silent nothing changes."""
    return clamp(sae, latent, 0.0, along=along)


def project_out(directions_KE: Float[Tensor, "K E"]) -> PairEdit:
    """(I − P) h: nothing of h is left in the span of the directions, which need not be orthogonal."""
    basis_EK = torch.linalg.qr(directions_KE.T).Q
    return lambda _, h_BWE: h_BWE - (h_BWE @ basis_EK.to(h_BWE.device)) @ basis_EK.T.to(h_BWE.device)


def only_at(
    edit: PairEdit,
    mask_BW: Bool[Tensor, "B W"],
    *,
    norm_limit: float | None,
    target_norm_limit: float | None = None,
) -> PairEdit:
    """The edit, where the token policy counts a position; attention sinks and padding stay as they are.

    Args:
        norm_limit: the largest norm of x that counts; None: any.
        target_norm_limit: the same of h, where it is another site's.
    """

    def masked(x_BWD: Tensor, h_BWE: Tensor) -> Tensor:
        counts_BW = mask_BW.to(h_BWE.device) & norm_mask(x_BWD, norm_limit) & norm_mask(h_BWE, target_norm_limit)
        return torch.where(counts_BW[..., None], edit(x_BWD, h_BWE), h_BWE)

    return masked


def latent_activation(sae: Sae, x_BWD: Float[Tensor, "B W D"], latent: int) -> Float[Tensor, "B W"]:
    """One latent's activation at each position, in competition with all others where the SAE has it so."""
    codes = sae.encode(x_BWD.reshape(-1, x_BWD.shape[-1]).to(sae.W_enc.device))
    mine = codes.latent == latent
    f_T = codes.value.new_zeros(codes.tokens)
    f_T[codes.rows()[mine]] = codes.value[mine]
    return f_T.reshape(x_BWD.shape[:-1]).to(x_BWD)


def random_directions(count: int, width: int, *, generator: torch.Generator) -> Float[Tensor, "K D"]:
    """Unit directions drawn evenly from the sphere."""
    drawn_KD = torch.randn(count, width, generator=generator)
    return drawn_KD / drawn_KD.norm(dim=1, keepdim=True)
