"""Everything that changes while training, and its way into a checkpoint and back.

# D d_model, F latent
"""

from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from saeops.sae.build import build
from saeops.sae.trainable import TrainableSae
from saeops.sae.variants import Variant
from saeops.training.checkpoint import Checkpoint
from saeops.training.curve import Point
from saeops.training.dead import SilentTokens
from saeops.training.normalise import Normalisation

ADAM_EPS = 6.25e-10
"""As in arXiv 2406.04093: gradients of a mean over so many elements are small; 1e-8 would damp rare latents."""
ADAM_STATE = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class TrainState:
    """A run between two steps. Weights and Adam's moments are fp32, whatever the data is stored in."""

    sae: TrainableSae
    optimiser: torch.optim.Adam
    normalisation: Normalisation
    silent: SilentTokens
    curve: list[Point] = field(default_factory=list)
    step: int = 0
    """Steps done."""

    @property
    def device(self) -> torch.device:
        return self.sae.b_dec.device

    def checkpoint(self) -> Checkpoint:
        """A snapshot that `resume` turns back into the same bits."""
        tensors: dict[str, Tensor] = {
            "normalisation.mean": self.normalisation.mean,
            "silent_tokens": self.silent.count,
        }
        for name, parameter in self.sae.named_parameters():
            tensors[f"weights.{name}"] = parameter.detach()
            for part in ADAM_STATE:
                tensors[f"adam.{part}.{name}"] = self.optimiser.state[parameter][part]
        facts = {"scale": self.normalisation.scale, "curve": [asdict(point) for point in self.curve]}
        return Checkpoint(self.step, tensors, facts)


def begin(
    variant: Variant,
    normalisation: Normalisation,
    *,
    d_sae: int,
    seed: int,
    device: torch.device,
) -> TrainState:
    """A run before its first step."""
    generator = torch.Generator().manual_seed(seed)
    sae = build(variant, d_model=len(normalisation.mean), d_sae=d_sae, generator=generator).to(device)
    silent = SilentTokens(torch.zeros(d_sae, dtype=torch.int64, device=device))
    return TrainState(sae, _adam(sae), normalisation.to(device), silent)


def resume(variant: Variant, checkpoint: Checkpoint, *, device: torch.device) -> TrainState:
    """The run a checkpoint was taken of. Nothing is estimated or drawn again."""
    tensors = {name: tensor.to(device) for name, tensor in checkpoint.tensors.items()}
    mean = tensors["normalisation.mean"]
    normalisation = Normalisation(mean, checkpoint.facts["scale"])
    d_sae = len(tensors["silent_tokens"])
    state = begin(variant, normalisation, d_sae=d_sae, seed=0, device=device)
    state.silent.count = tensors["silent_tokens"]
    with torch.no_grad():
        for name, parameter in state.sae.named_parameters():
            parameter.copy_(tensors[f"weights.{name}"])
            state.optimiser.state[parameter] = {part: tensors[f"adam.{part}.{name}"] for part in ADAM_STATE}
    state.curve = [Point(**point) for point in checkpoint.facts["curve"]]
    state.step = checkpoint.step
    return state


def _adam(sae: TrainableSae) -> torch.optim.Adam:
    return torch.optim.Adam(sae.parameters(), lr=0.0, betas=(0.9, 0.999), eps=ADAM_EPS, fused=True)
