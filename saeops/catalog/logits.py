"""Logit effects: the tokens whose logits a latent's direction raises and lowers most.

# F latent, D d_model, V vocabulary, N token listed
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK_VALUES = 1 << 24
"""Largest piece of the F × V product, in values (64 MB of fp32)."""


@dataclass(frozen=True)
class LogitEffects:
    """Token ids and logit changes for some consecutive latents, strongest first."""

    raised_FN: Int[Tensor, "F N"]
    raised_logit_FN: Float[Tensor, "F N"]
    lowered_FN: Int[Tensor, "F N"]
    lowered_logit_FN: Float[Tensor, "F N"]


@torch.no_grad()
def logit_effects(
    unembed: Callable[[Float[Tensor, "F D"]], Float[Tensor, "F V"]],
    W_dec: Float[Tensor, "F D"],
    n: int,
    *,
    vocabulary: int,
) -> Iterator[LogitEffects]:
    """The n most raised and n most lowered tokens of each latent, chunk by chunk."""
    size = max(1, CHUNK_VALUES // vocabulary)
    for start in range(0, len(W_dec), size):
        logits_FV = unembed(W_dec[start : start + size]).float()
        raised = logits_FV.topk(min(n, logits_FV.shape[1]), dim=1)
        lowered = logits_FV.topk(min(n, logits_FV.shape[1]), dim=1, largest=False)
        yield LogitEffects(raised.indices.cpu(), raised.values.cpu(), lowered.indices.cpu(), lowered.values.cpu())
