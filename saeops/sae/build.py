"""From a variant in params to the module that trains it."""

from typing import assert_never

import torch

from saeops.sae.batch_topk import BatchTopKSae
from saeops.sae.gated import GatedSae
from saeops.sae.jumprelu import JumpReLUSae
from saeops.sae.matryoshka import MatryoshkaSae
from saeops.sae.relu_l1 import ReluL1Sae
from saeops.sae.topk import TopKSae
from saeops.sae.trainable import Shape, TrainableSae
from saeops.sae.variants import BatchTopK, Gated, JumpReLU, Matryoshka, ReluL1, TopK, Variant


def build(variant: Variant, shape: Shape, *, generator: torch.Generator) -> TrainableSae:
    """A variant with fresh weights: the same generator state gives the same bits."""
    match variant:
        case TopK():
            return TopKSae(variant, shape, generator=generator)
        case BatchTopK():
            return BatchTopKSae(variant, shape, generator=generator)
        case JumpReLU():
            return JumpReLUSae(variant, shape, generator=generator)
        case Gated():
            return GatedSae(variant, shape, generator=generator)
        case Matryoshka():
            return MatryoshkaSae(variant, shape, generator=generator)
        case ReluL1():
            return ReluL1Sae(variant, shape, generator=generator)
        case _:
            assert_never(variant)
