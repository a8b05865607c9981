"""Everything that changes while training, and its way into a checkpoint and back.

# D d_model, F latent
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from saeops.sae.build import build
from saeops.sae.canonical import Sae
from saeops.sae.folding import unfold
from saeops.sae.trainable import Shape, TrainableSae
from saeops.sae.variants import Variant
from saeops.training.adam import Adam
from saeops.training.checkpoint import Checkpoint
from saeops.training.curve import Point
from saeops.training.dead import SilentTokens
from saeops.training.normalise import Normalisation
from saeops.training.pairs import Pair, PairNormalisation


@dataclass
class TrainState:
    """A run between two steps. Weights and Adam's moments are fp32, whatever the data is stored in."""

    sae: TrainableSae
    optimiser: Adam
    normalisation: PairNormalisation
    silent: SilentTokens
    curve: list[Point] = field(default_factory=list)
    step: int = 0
    """Steps done."""

    @property
    def device(self) -> torch.device:
        return self.sae.b_dec.device

    @property
    def reading(self) -> Normalisation:
        """What the encoder reads in place of raw activations: s·(x − μ) − centre = s·(x − (μ + centre/s))."""
        mean, scale = self.normalisation.input.mean, self.normalisation.input.scale
        return Normalisation(mean + self.sae.centre.detach() / scale, scale)

    def checkpoint(self) -> Checkpoint:
        """A snapshot that `resume` turns back into the same bits."""
        sides = {"input": self.normalisation.input}
        if self.normalisation.transcodes:
            sides["target"] = self.normalisation.target
        tensors: dict[str, Tensor] = {"silent_tokens": self.silent.count}
        tensors |= {f"normalisation.{side}": normalisation.mean for side, normalisation in sides.items()}
        tensors |= {f"weights.{name}": value.detach() for name, value in self.sae.state_dict().items()}
        for name, moments in self.optimiser.moments.items():
            tensors[f"adam.first.{name}"] = moments.first
            tensors[f"adam.second.{name}"] = moments.second
        facts = {
            "scale": {side: normalisation.scale for side, normalisation in sides.items()},
            "adam_steps": self.optimiser.step_count,
            "curve": [asdict(point) for point in self.curve],
        }
        return Checkpoint(self.step, tensors, facts)


def begin(
    variant: Variant, sample: Pair, *, d_sae: int, seed: int, device: torch.device, warm: Sae | None = None
) -> TrainState:
    """A run before its first step.

    Args:
        sample: raw activations from which the normalisation is estimated, and what a variant starts from.
        warm: an SAE of this variant and shape to start from; None: random weights.

    Raises:
        NonFinite: the sample holds NaN or infinity, or does not vary at all.
    """
    normalisation = PairNormalisation.estimate(sample)
    state = _blank(variant, normalisation, d_sae=d_sae, seed=seed, device=device)
    if warm is None:
        with torch.no_grad():
            state.sae.start(state.normalisation.input.apply(sample.x_TD.to(device)))
    else:
        state.sae.take(unfold(warm, input=normalisation.input, target=normalisation.target))
    return state


def resume(variant: Variant, checkpoint: Checkpoint, *, device: torch.device) -> TrainState:
    """The run a checkpoint was taken of. Nothing is estimated or drawn again."""
    tensors = {name: tensor.to(device) for name, tensor in checkpoint.tensors.items()}
    normalisation = _normalisation(tensors, checkpoint.facts["scale"])
    d_sae = len(tensors["silent_tokens"])
    state = _blank(variant, normalisation, d_sae=d_sae, seed=0, device=device)
    state.silent.count = tensors["silent_tokens"]
    state.sae.load_state_dict({name: tensors[f"weights.{name}"] for name in state.sae.state_dict()})
    for name, moments in state.optimiser.moments.items():
        moments.first.copy_(tensors[f"adam.first.{name}"])
        moments.second.copy_(tensors[f"adam.second.{name}"])
    state.optimiser.step_count = checkpoint.facts["adam_steps"]
    state.curve = [Point(**point) for point in checkpoint.facts["curve"]]
    state.step = checkpoint.step
    return state


def _normalisation(tensors: Mapping[str, Tensor], scale: Mapping[str, float]) -> PairNormalisation:
    sides = {side: Normalisation(tensors[f"normalisation.{side}"], scale[side]) for side in scale}
    return PairNormalisation(sides["input"], sides.get("target", sides["input"]))


def _blank(
    variant: Variant, normalisation: PairNormalisation, *, d_sae: int, seed: int, device: torch.device
) -> TrainState:
    generator = torch.Generator().manual_seed(seed)
    d_in, d_out = len(normalisation.input.mean), len(normalisation.target.mean)
    shape = Shape(d_in, d_sae, d_out, transcodes=normalisation.transcodes)
    sae = build(variant, shape, generator=generator).to(device)
    unit_rows = frozenset({"W_dec_FE"} if sae.unit_rows else ())
    optimiser = Adam.of(dict(sae.named_parameters()), unit_rows=unit_rows)
    silent = SilentTokens(torch.zeros(d_sae, dtype=torch.int64, device=device))
    return TrainState(sae, optimiser, normalisation.to(device), silent)
