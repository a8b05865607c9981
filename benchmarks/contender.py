"""What every library's adapter offers, and the weights that can be put into each.

# T token, D d_model, F latent
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.recipe import Problem, Recipe

SILENT = -1e4
"""An encoder bias under which no latent fires."""
LONG_AGO = 1_000_000_000
"""Tokens or steps: more than any library's threshold of death."""


@dataclass(frozen=True)
class Common:
    """Weights on raw activations that every library can hold: f = act(x W_enc + b_enc), x̂ = f W_dec.

    No decoder bias: one of the libraries has none. Decoder rows have unit norm.
    """

    W_enc_DF: Tensor
    b_enc: Tensor
    W_dec_FD: Tensor
    threshold: float
    """Under it no latent fires, where the variant has a threshold; above 0."""


@dataclass(frozen=True)
class Reading:
    """What an SAE makes of a batch, in the units of the raw activations."""

    x_hat_TD: Tensor
    fires_TF: Tensor
    """Boolean."""

    @property
    def l0(self) -> float:
        return float(self.fires_TF.sum(1, dtype=torch.float32).mean())


class Contender(ABC):
    """One library's real training step on one problem, with its defaults on."""

    library: str
    version: str
    tolerance = 1e-4
    """Relative difference from the oracle that is still the same problem."""

    def __init__(self, problem: Problem, recipe: Recipe) -> None:
        self.problem = problem
        self.recipe = recipe

    def ready(self) -> None:
        """Before its turn, outside of what is timed."""
        return

    @abstractmethod
    def step(self, x_TD: Tensor) -> float:
        """One whole training step on raw activations; gives the library's own loss (NaN where it gives none)."""

    @abstractmethod
    def read(self, x_TD: Tensor, *, training: bool) -> Reading:
        """Reconstruct raw activations, by the library's path of training or of inference."""

    @abstractmethod
    def put(self, weights: Common) -> None:
        """Replace the weights; the optimiser's state may stay."""

    @abstractmethod
    def silence(self, latents: Tensor) -> None:
        """Make latents dead for good: they never fire again, and the library counts them as dead."""

    @abstractmethod
    def decoder(self) -> Tensor:
        """Decoder rows, F × D."""

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """What the step does, for whoever reads the table: JSON."""

    def training_fvu(self, x_TD: Tensor) -> float:
        """Of a batch, by the training path: Σ‖x − x̂‖² / Σ‖x − μ‖²."""
        return fvu(x_TD, self.read(x_TD, training=True).x_hat_TD)

    def finish(self) -> None:
        """After the last step, before what was trained is read."""
        return

    def parts(self) -> dict[str, Any]:
        """What this is: library, version, settings."""
        return {
            "label": self.recipe.label,
            "library": self.library,
            "version": self.version,
            "settings": dict(self.settings()),
        }


def fvu(x_TD: Tensor, x_hat_TD: Tensor) -> float:
    """Σ‖x − x̂‖² / Σ‖x − μ‖², which is 1 − EV."""
    mean = x_TD.double().mean(0)
    missed = (x_TD.double() - x_hat_TD).square().sum()
    return float(missed / (x_TD.double() - mean).square().sum())
