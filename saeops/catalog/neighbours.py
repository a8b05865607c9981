"""Neighbours: the latents whose decoder directions are nearest.

# F latent, D width of the output, N neighbour
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saeops.sae.select import encode_topk

NEIGHBOURS = 5


@dataclass(frozen=True)
class Neighbours:
    """Of every latent in order, the nearest first."""

    latent_FN: Int[Tensor, "F N"]
    cosine_FN: Float[Tensor, "F N"]


@torch.no_grad()
def nearest(W_dec_FD: Float[Tensor, "F D"], n: int = NEIGHBOURS) -> Neighbours:
    """The n other rows of largest cosine, fewer where there are no more; the lower latent wins a tie.

    The exact search of the encoder finds them, so that no F × F matrix is made.

    Args:
        W_dec_FD: rows of unit norm.
    """
    rows_FD, n_latents = W_dec_FD.cpu().float().contiguous(), len(W_dec_FD)
    n = min(n, n_latents - 1)
    # One more, since each row finds itself.
    found = encode_topk(rows_FD, rows_FD, rows_FD.new_zeros(n_latents), n + 1)
    cosine_FN, latent_FN = found.value.clamp(-1, 1), found.latent.long()
    itself_FN = latent_FN == torch.arange(n_latents)[:, None]
    # Itself goes last; where copies of it stand in its place, the last of them does.
    cosine_FN = cosine_FN.masked_fill(itself_FN, -torch.inf)
    latent_FN, by_latent = latent_FN.sort(dim=1)
    cosine_FN, order = cosine_FN.gather(1, by_latent).sort(dim=1, descending=True, stable=True)
    return Neighbours(latent_FN.gather(1, order)[:, :n], cosine_FN[:, :n])
