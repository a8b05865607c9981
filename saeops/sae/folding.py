"""From weights as trained to the canonical form.

# D d_model, F latent
"""

import torch
from jaxtyping import Float
from torch import Tensor

from saeops.sae.canonical import Sae, SaeMeta
from saeops.sae.trainable import Weights


@torch.no_grad()
def fold(weights: Weights, meta: SaeMeta, *, mean: Float[Tensor, " D"], scale: float) -> Sae:
    """The SAE on raw x that does what `weights` do on s·(x − μ).

    With b = μ + b_dec / s the normalised pre-activation is s·((x − b) W_encᵀ + b_enc / s): latents come
    out s times smaller, in the units of x, and so must thresholds, or another L0 results. A decoder
    row of length n gives it to its latent: encoder, bias and threshold grow by n.
    """
    W_dec_FD = weights.W_dec_FD.double()
    norm = W_dec_FD.norm(dim=1)
    # A row of length 0 adds nothing whenever it fires; any direction with an encoder of 0 does the same.
    basis = torch.zeros_like(W_dec_FD[:1]).index_fill_(1, torch.zeros(1, dtype=torch.long, device=norm.device), 1)
    unit_FD = torch.where(norm[:, None] > 0, W_dec_FD / norm.clamp(min=1e-30)[:, None], basis)
    threshold = weights.threshold
    folded = {
        "W_enc": (weights.W_enc_FD * norm[:, None]).t(),
        "b_enc": weights.b_enc * norm / scale,
        "W_dec": unit_FD,
        "b_dec": mean + weights.b_dec.double() / scale,
    }
    if threshold is not None:
        folded["threshold"] = threshold * norm / scale
    return Sae.of({name: tensor.float().cpu().contiguous() for name, tensor in folded.items()}, meta)
