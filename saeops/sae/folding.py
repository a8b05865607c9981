"""From weights as trained to the canonical form, and back.

# D d_model (E of the target), F latent
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from saeops.sae.canonical import Sae, SaeMeta
from saeops.sae.trainable import Weights


@dataclass(frozen=True)
class Scaling:
    """v → s·(v − μ): what training saw in place of raw activations."""

    mean: Float[Tensor, " D"]
    scale: float


@torch.no_grad()
def fold(weights: Weights, meta: SaeMeta, *, input: Scaling, target: Scaling) -> Sae:
    """The SAE on raw x that does what `weights` do on s·(x − μ), giving raw y for t·(y − ν).

    x·W + b on normalised x is x·(s·W) + b − s·μ·W on raw x; where the SAE takes its b_dec off the input, what
    that removes goes back into the bias. The output is ν + (f W_dec + b_dec) / t, so a latent whose decoder
    row has length n adds n / t of its activation along the unit row: encoder, bias and threshold take on
    that factor, or another L0 would result.
    """
    W_enc_FD, W_dec_FE = weights.W_enc_FD.double(), weights.W_dec_FE.double()
    norm = W_dec_FE.norm(dim=1)
    # A row of length 0 adds nothing whenever it fires; any direction with an encoder of 0 does the same.
    basis = torch.zeros_like(W_dec_FE[:1]).index_fill_(1, torch.zeros(1, dtype=torch.long, device=norm.device), 1)
    unit_FE = torch.where(norm[:, None] > 0, W_dec_FE / norm.clamp(min=1e-30)[:, None], basis)
    length = norm / target.scale
    b_dec = target.mean.double() + weights.b_dec.double() / target.scale
    taken_off = b_dec if meta.apply_b_dec_to_input else torch.zeros_like(input.mean, dtype=torch.float64)
    bias = weights.b_enc.double() + input.scale * (W_enc_FD @ (taken_off - input.mean.double()))
    folded = {
        "W_enc": (W_enc_FD * (input.scale * length)[:, None]).t(),
        "b_enc": bias * length,
        "W_dec": unit_FE,
        "b_dec": b_dec,
    }
    if weights.threshold is not None:
        folded["threshold"] = weights.threshold * length
    return Sae.of({name: tensor.float().cpu().contiguous() for name, tensor in folded.items()}, meta)


@torch.no_grad()
def unfold(sae: Sae, *, input: Scaling, target: Scaling) -> Weights:
    """Weights that do on s·(x − μ), for t·(y − ν), what the SAE does on raw x: `fold` of them is the SAE again.

    Decoder rows stay of unit norm, so a latent's activation is t times what it is in the SAE.
    """
    W_enc_FD, t = sae.W_enc.double().t(), target.scale
    taken_off = sae.b_dec.double() if sae.meta.apply_b_dec_to_input else torch.zeros_like(W_enc_FD[0])
    bias = sae.b_enc.double() + W_enc_FD @ (input.mean.double() - taken_off)
    return Weights(
        (W_enc_FD * (t / input.scale)).float(),
        (bias * t).float(),
        sae.W_dec.clone(),
        ((sae.b_dec.double() - target.mean.double()) * t).float(),
        None if sae.threshold is None else sae.threshold * t,
    )
