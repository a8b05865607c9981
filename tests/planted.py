"""Activations with a known dictionary, and batches of them as the loop wants them.

# T token, D d_model, F latent
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from saeops.sae.variants import Variant
from saeops.training.config import TrainingConfig
from saeops.training.pairs import Pair
from saeops.training.state import TrainState, begin

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Planted:
    """Sparse sums of known unit directions, round a mean."""

    directions: Tensor
    x: Tensor

    def batches(self, size: int) -> Callable[[int], Iterator[Pair]]:
        """The tokens in order, over and over, from any step on."""
        n_batches = len(self.x) // size

        def from_step(step: int) -> Iterator[Pair]:
            while True:
                start = step % n_batches * size
                yield Pair.same(self.x[start : start + size])
                step += 1

        return from_step


def plant(
    *,
    n_features: int,
    d_model: int,
    tokens: int,
    active: int,
    seed: int = 77,
    mean: float = 3.0,
    scale: float = 5.0,
) -> Planted:
    """`active` of `n_features` directions a token, each with a strength from 0.5 to 1.5, then scaled and moved.

    With the seed of the weights, their directions would be the planted ones.
    """
    g = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(n_features, d_model, generator=g), dim=1)
    chosen = torch.rand(tokens, n_features, generator=g).topk(active, dim=1).indices
    f_TF = torch.zeros(tokens, n_features).scatter(1, chosen, 0.5 + torch.rand(tokens, active, generator=g))
    return Planted(directions, scale * (f_TF @ directions) + mean * torch.randn(d_model, generator=g))


def fresh(variant: Variant, data: Planted, *, d_sae: int, seed: int = 0) -> TrainState:
    """A run on planted data before its first step."""
    return begin(variant, Pair.same(data.x), d_sae=d_sae, seed=seed, device=CPU)


def short_config(**changes: object) -> TrainingConfig:
    """Thirty steps of 64 tokens, with figures and checkpoints often."""
    base = {
        "tokens": 64 * 30,
        "batch_size": 64,
        "lr": 3e-3,
        "dead_after_tokens": 256,
        "log_every_steps": 5,
        "checkpoint_every_steps": 4,
        "keep_checkpoints": 3,
    }
    return TrainingConfig.model_validate(base | changes)
