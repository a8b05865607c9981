"""Random tensors for property tests, and variants with every weight away from its start."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from saeops.sae.build import build
from saeops.sae.trainable import Shape, TrainableSae
from saeops.sae.variants import Variant

seeds = st.integers(0, 2**31)


def gaussian(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def perturbed(variant: Variant, shape: Shape, seed: int, *, bias: float = 0.0) -> TrainableSae:
    """In float64, every weight moved by noise; a low bias leaves few latents to fire."""
    sae = build(variant, shape, generator=torch.Generator().manual_seed(seed)).double()
    with torch.no_grad():
        for number, parameter in enumerate(sae.parameters()):
            parameter.add_(0.2 * gaussian(seed + number, *parameter.shape))
        sae.b_enc.add_(bias)
    return sae
