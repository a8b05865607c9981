"""The tokens that all contenders see: an activation set, a file, or random numbers to try the code.

# T token, D d_model
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from saeops.activations.reader import ActivationSet
from saeops.activations.shuffle import ShuffledTokens

BUFFER_TOKENS = 131_072
RANDOM_TOKENS = 65_536
SAMPLE_TOKENS = 16_384
HELD_OUT_SHARE = 0.1
"""Of a file or of random numbers; an activation set has its own eval split, apart by document."""


class Tokens(Protocol):
    """Raw activations in fp32."""

    source: str
    d_model: int

    def batches(self, size: int, *, seed: int) -> Iterator[Tensor]:
        """Endless shuffled batches for training; the seed alone decides the order."""
        ...

    def held_out(self, most: int) -> Tensor:
        """At most that many tokens that training never sees."""
        ...


@dataclass(frozen=True)
class SetTokens:
    """One site of a harvested activation set."""

    acts: ActivationSet
    site: str

    @property
    def source(self) -> str:
        model = self.acts.model.get("ref", "a model")
        return f"{model} at {self.site}, {self.acts.count(self.site, 'train'):,} train tokens"

    @property
    def d_model(self) -> int:
        return self.acts.width(self.site)

    def batches(self, size: int, *, seed: int) -> Iterator[Tensor]:
        shuffled = ShuffledTokens(self.acts, self.site, batch_size=size, buffer_tokens=BUFFER_TOKENS, seed=seed)
        return (batch.activations for batch in shuffled)

    def held_out(self, most: int) -> Tensor:
        parts, held = [], 0
        for batch in self.acts.batches(self.site, "eval", 4096):
            parts.append(batch.activations)
            held += len(parts[-1])
            if held >= most:
                break
        return torch.cat(parts)[:most]


@dataclass(frozen=True)
class ArrayTokens:
    """Tokens in memory or in a mapped file; the last tenth is held out."""

    x_TD: np.ndarray
    source: str

    @property
    def d_model(self) -> int:
        return int(self.x_TD.shape[1])

    @property
    def _train(self) -> int:
        return len(self.x_TD) - max(1, round(HELD_OUT_SHARE * len(self.x_TD)))

    def batches(self, size: int, *, seed: int) -> Iterator[Tensor]:
        generator = np.random.default_rng(seed)
        while True:
            order = generator.permutation(self._train)
            for start in range(0, len(order) - size + 1, size):
                chosen = np.sort(order[start : start + size])
                yield torch.from_numpy(np.asarray(self.x_TD[chosen], dtype=np.float32))

    def held_out(self, most: int) -> Tensor:
        return torch.from_numpy(np.array(self.x_TD[self._train :][:most], dtype=np.float32))


def open_tokens(where: str, *, site: str, d_model: int) -> Tokens:
    """An activation set's folder, a `.npy` of tokens × d_model, or `random`.

    Args:
        site: of the activation set.
        d_model: of the random numbers.
    """
    if where == "random":
        x_TD = np.random.default_rng(0).standard_normal((RANDOM_TOKENS, d_model), dtype=np.float32)
        return ArrayTokens(x_TD, "random numbers: the code runs, the figures say nothing of real activations")
    path = Path(where)
    if path.suffix == ".npy":
        return ArrayTokens(np.load(path, mmap_mode="r"), f"{path.name}")
    return SetTokens(ActivationSet.open(path), site)


def sample(tokens: Tokens) -> Tensor:
    """Tokens of the train split from which contenders estimate their scales."""
    return next(tokens.batches(SAMPLE_TOKENS, seed=0))
