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


def plant_zipf(
    *, n_features: int, d_model: int, tokens: int, active: int, seed: int = 77, exponent: float = 1.0
) -> Planted:
    """Feature r fires with probability ∝ (r + 1)^−exponent, about `active` a token: the last ones are rare."""
    g = torch.Generator().manual_seed(seed)
    weight_F = torch.arange(1, n_features + 1).float() ** -exponent
    return _summed(_independent(_rates(weight_F, active), tokens, g), d_model, g)


def plant_pairs(
    *, n_features: int, d_model: int, tokens: int, active: int, seed: int = 77, together: float = 0.8
) -> Planted:
    """Features 2i and 2i + 1 fire together: each fires with probability `together` where the other does.

    All are equally frequent, about `active` fire on a token.
    """
    g = torch.Generator().manual_seed(seed)
    rate = active / n_features
    first_TP = torch.rand(tokens, n_features // 2, generator=g) < rate
    # Where the first is silent, as often as the second's own rate asks.
    alone = rate * (1 - together) / (1 - rate)
    second_TP = torch.rand(tokens, n_features // 2, generator=g) < torch.where(first_TP, together, alone)
    return _summed(torch.stack([first_TP, second_TP], 2).flatten(1), d_model, g)


def plant_hierarchy(
    *, n_features: int, d_model: int, tokens: int, active: int, seed: int = 77, children: int = 3
) -> Planted:
    """Every parent has `children` features that fire only where it does, one of them on four tokens in five.

    A dictionary may absorb the parent into its children. About `active` features fire on a token.
    """
    g = torch.Generator().manual_seed(seed)
    parents = n_features // (children + 1)
    share = 0.8
    parent_TP = torch.rand(tokens, parents, generator=g) < active / (parents * (1 + share))
    which_TP = torch.randint(children, (tokens, parents), generator=g)
    speaks_TP = parent_TP & (torch.rand(tokens, parents, generator=g) < share)
    child_TPC = torch.nn.functional.one_hot(which_TP, children).bool() & speaks_TP[..., None]
    return _summed(torch.cat([parent_TP[..., None], child_TPC], 2).flatten(1), d_model, g)


def _rates(weight_F: Tensor, active: float) -> Tensor:
    """Probabilities ∝ weight, at most a half each, whose sum is `active`."""
    low, high = 0.0, active / float(weight_F.min())
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if float((weight_F * middle).clamp(max=0.5).sum()) < active else (low, middle)
    return (weight_F * low).clamp(max=0.5)


def _independent(rate_F: Tensor, tokens: int, g: torch.Generator) -> Tensor:
    return torch.rand(tokens, len(rate_F), generator=g) < rate_F


def _summed(
    fires_TF: Tensor, d_model: int, g: torch.Generator, *, mean: float = 3.0, scale: float = 5.0
) -> Planted:
    """Random directions with strengths from 0.5 to 1.5 where they fire, scaled and moved as `plant` does."""
    directions = torch.nn.functional.normalize(torch.randn(fires_TF.shape[1], d_model, generator=g), dim=1)
    f_TF = fires_TF * (0.5 + torch.rand(fires_TF.shape, generator=g))
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
