"""From a variant in params to the module that trains it."""

from typing import assert_never

import torch

from saeops.sae.relu_l1 import ReluL1Sae
from saeops.sae.topk import TopKSae
from saeops.sae.trainable import Shape, TrainableSae
from saeops.sae.variants import ReluL1, TopK, Variant


def build(variant: Variant, shape: Shape, *, generator: torch.Generator) -> TrainableSae:
    """A variant with fresh weights: the same generator state gives the same bits."""
    match variant:
        case TopK():
            return TopKSae(variant, shape, generator=generator)
        case ReluL1():
            return ReluL1Sae(variant, shape, generator=generator)
        case _:
            assert_never(variant)
