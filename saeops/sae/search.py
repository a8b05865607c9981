"""The k largest pre-activations without the dense fp32 product: rounded products tell which few to compute.

What rounding leaves out of a product is bounded by lengths (Cauchy-Schwarz), so
that every pre-activation is known to lie in an interval. Only latents whose
interval reaches the k-th largest value are computed in fp32: the result is that
of the dense product.

# T token, D d_model, F latent, K kept a token
"""

from jaxtyping import Float
from torch import Tensor

from saeops.sae.native.library import Library, Rounded, Search

STRIDE = 16
"""One row in so many says how large each dimension is."""
SMALLEST_RATIO = 64
"""Latents for each that is kept, below which the dense product is as fast: measured with D = 576."""
MOST_CANDIDATES = 192
"""The compiled kernel has room for these and more."""


def worth_it(native: Library, *, n_latents: int, k: int) -> bool:
    """Whether the processor has the instructions, and enough latents can be left out."""
    return native.has_search and n_latents >= SMALLEST_RATIO * k and k <= MOST_CANDIDATES


def search_all(
    native: Library,
    x_TD: Float[Tensor, "T D"],
    W_enc_FD: Float[Tensor, "F D"],
    b_enc: Float[Tensor, " F"],
    k: int,
    *,
    rounded: Rounded | None = None,
) -> Search:
    """The k largest of all, by products of bfloat16, whose intervals are narrow.

    Args:
        rounded: of W_enc, by `rounded_for_all`; None: made now.
    """
    stretch = _unstretched(W_enc_FD)
    return native.search_topk(x_TD, W_enc_FD, b_enc, stretch=stretch, candidates=0, k=k, rounded=rounded)


def rounded_for_all(native: Library, W_enc_FD: Float[Tensor, "F D"]) -> Rounded:
    """What `search_all` reads in place of the weights: worth keeping where they stay as they are."""
    return native.rounded_latents(W_enc_FD, stretch=_unstretched(W_enc_FD), as_bytes=False)


def search_some(
    native: Library,
    x_TD: Float[Tensor, "T D"],
    W_enc_FD: Float[Tensor, "F D"],
    b_enc: Float[Tensor, " F"],
    k: int,
    *,
    candidates: int,
) -> Search:
    """The k largest of so many likely candidates, by products of bytes: twice as fast, and may miss some."""
    stretch = _stretch(x_TD, W_enc_FD)
    return native.search_topk(x_TD, W_enc_FD, b_enc, stretch=stretch, candidates=candidates, k=k)


def _unstretched(W_enc_FD: Float[Tensor, "F D"]) -> Float[Tensor, " D"]:
    return W_enc_FD.new_ones(W_enc_FD.shape[1])


def _stretch(x_TD: Float[Tensor, "T D"], W_enc_FD: Float[Tensor, "F D"]) -> Float[Tensor, " D"]:
    """Evens out dimensions before they become bytes: where x is large, W grows and x shrinks, to equal RMS.

    The products stay the same. Residual streams have dimensions many times as large as the others, which
    would leave the others few of the 255 steps (Xiao et al. 2022, SmoothQuant, arXiv 2211.10438).
    """
    x_D, w_D = (rows[::STRIDE].square().mean(0).sqrt().clamp(min=1e-6) for rows in (x_TD, W_enc_FD))
    return (x_D / w_D).sqrt()
