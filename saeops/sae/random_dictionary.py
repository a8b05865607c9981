"""The random dictionary: a null that has the SAE's form and size, and learnt nothing but a mean and one scale.

Decoder rows are random unit vectors and the encoder is their transpose; as many latents fire as in the SAE it
stands beside. Its one scale is fitted by least squares, so that it loses by its directions alone.

A transcoder's latents are read in another space than they write to. There the encoder is the transpose behind
the best linear map between the two: it reads the random directions off the least-squares prediction of y.

# T token, D d_model, E width of the output (D in an autoencoder), F latent
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from saeops.sae.canonical import Sae

VARIANT = "random_dictionary"
FIT_TOKENS = 8192
"""Tokens that the scale and the mean L0 are taken from, evenly spaced: one number needs no more."""
BATCH_TOKENS = 4096
THRESHOLD_TOKENS = 1024
"""Tokens whose pre-activations are all held at once."""


@torch.no_grad()
def random_dictionary(sae: Sae, x_TD: Float[Tensor, "T D"], y_TE: Float[Tensor, "T E"], *, seed: int) -> Sae:
    """The null beside an SAE: the same sites, width, number of latents, and k or mean L0.

    Args:
        x_TD: train tokens at the input site; the fit takes nothing else.
        y_TE: the same tokens at the target site; `x_TD` itself in an autoencoder.
        seed: draws the directions.

    Where the SAE has thresholds or neither k nor thresholds, one threshold for all latents gives its mean L0 on
    these tokens.
    """
    x_TD, y_TE = x_TD.float(), y_TE.float()
    generator = torch.Generator().manual_seed(seed)
    drawn_FE = torch.randn(sae.meta.d_sae, sae.meta.width_out, generator=generator)
    W_dec = drawn_FE / drawn_FE.norm(dim=1, keepdim=True)
    transcodes = sae.meta.sites.transcodes
    W_enc, b_enc = W_dec.T.contiguous(), torch.zeros(len(W_dec))
    if transcodes:
        W_enc = _least_squares(x_TD, y_TE) @ W_enc
        b_enc = -(x_TD.double().mean(0).float() @ W_enc)
    meta = sae.meta.model_copy(update={"variant": VARIANT, "apply_b_dec_to_input": not transcodes})
    unscaled = Sae(W_enc, b_enc, W_dec, y_TE.double().mean(0).float(), None, meta)
    stride = -(-len(x_TD) // FIT_TOKENS)
    x_TD, y_TE = x_TD[::stride], y_TE[::stride]
    if sae.k is None:
        unscaled = replace(unscaled, threshold=_threshold(unscaled, x_TD, mean_l0=_mean_l0(sae, x_TD)))
    return _scaled(unscaled, _best_scale(unscaled, x_TD, y_TE))


def _least_squares(x_TD: Float[Tensor, "T D"], y_TE: Float[Tensor, "T E"]) -> Float[Tensor, "D E"]:
    """The linear map that foretells y − ȳ from x − x̄ with the least squared error."""
    x_TD, y_TE = x_TD.double(), y_TE.double()
    x_TD, y_TE = x_TD - x_TD.mean(0), y_TE - y_TE.mean(0)
    return (torch.linalg.pinv(x_TD.T @ x_TD, hermitian=True) @ (x_TD.T @ y_TE)).float()


def _mean_l0(sae: Sae, x_TD: Float[Tensor, "T D"]) -> float:
    fired = sum(int(sae.encode(part).l0().sum()) for part in x_TD.split(BATCH_TOKENS))
    return fired / len(x_TD)


def _threshold(sae: Sae, x_TD: Float[Tensor, "T D"], *, mean_l0: float) -> Float[Tensor, " F"]:
    """One threshold that as many pre-activations exceed as fire in the mean; never below 0."""
    wanted = round(mean_l0 * len(x_TD))
    largest_N = x_TD.new_empty(0)
    for part_TD in x_TD.split(THRESHOLD_TOKENS):
        pre_N = torch.cat([largest_N, sae.pre(part_TD).flatten()])
        largest_N = pre_N.topk(min(wanted + 1, len(pre_N))).values
    # A latent at its threshold is silent, so the largest value that must not fire is the threshold.
    return torch.full((sae.meta.d_sae,), max(float(largest_N[-1]), 0.0))


def _best_scale(sae: Sae, x_TD: Float[Tensor, "T D"], y_TE: Float[Tensor, "T E"]) -> float:
    """argmin over a ≥ 0 of Σ‖y − b_dec − a·s‖², s what the latents add: Σ(y − b_dec)·s / Σ‖s‖²."""
    across = square = 0.0
    for x_BD, y_BE in zip(x_TD.split(BATCH_TOKENS), y_TE.split(BATCH_TOKENS), strict=True):
        s_BE = (sae.reconstruct(x_BD) - sae.b_dec).double()
        across += float(((y_BE - sae.b_dec).double() * s_BE).sum())
        square += float(s_BE.square().sum())
    return max(across / square, 0.0) if square else 0.0


def _scaled(sae: Sae, a: float) -> Sae:
    """Every activation times a, with the same latents firing."""
    threshold = None if sae.threshold is None else sae.threshold * a
    return replace(sae, W_enc=sae.W_enc * a, b_enc=sae.b_enc * a, threshold=threshold)
