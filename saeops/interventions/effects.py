"""What ablating and steering one latent does to the model, beside equal-norm random directions.

Everything here is raw: one number a prompt, context or document, for
`tabulate` to put intervals on. Changes are edited − clean.

# N prompt, V vocabulary, K random direction, B window, W position in a window
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saeops.activations.sites import PairEdit
from saeops.activations.windows import Window
from saeops.interventions.config import BenchConfig
from saeops.interventions.hooks import ablate, random_directions, steer
from saeops.interventions.panel import ScoredItem
from saeops.interventions.passes import Batch, Site, token_kl
from saeops.sae.canonical import Sae

Drawn = Literal["confidence", "random"]


@dataclass(frozen=True)
class Chosen:
    """A latent to test."""

    latent: int
    drawn: Drawn
    """`confidence`: among the best labelled; `random`: drawn from the other living ones."""
    max_activation: float
    """Largest activation in the catalog: the unit of strength."""
    contexts: tuple[Window, ...]
    """Its strongest contexts, each cut behind the token it fires on."""


@dataclass(frozen=True)
class Paired:
    """One number a unit for the latent, and for the mean of its random directions."""

    effect: tuple[float, ...]
    control: tuple[float, ...]


@dataclass(frozen=True)
class SteerEffects:
    """Steering at one strength, over the panel's prompts."""

    strength: float
    amount: float
    """strength × the latent's maximum activation: the length added at each position."""
    target: Paired
    """Change in mean log-prob of the latent's own tokens; control: of the same tokens."""
    own_control: tuple[float, ...]
    """Each random direction's change on the tokens that it itself raises: the harder control."""
    moved: Paired
    """Mean |change| of the log-probs of what should move, over prompts that tell the two apart."""
    stayed: Paired
    """The same of what should not move."""


@dataclass(frozen=True)
class LatentEffects:
    """Everything measured on one latent."""

    latent: int
    drawn: Drawn
    steered: tuple[SteerEffects, ...]
    """By rising strength."""
    steer_kl: Paired
    """KL(clean ‖ steered) at the reference strength, mean over a neutral document's tokens."""
    ablate_target: Paired
    """Change in mean log-prob of its own tokens where it fires, when its contribution is taken away."""
    ablate_kl: Paired
    """KL(clean ‖ ablated), mean over a neutral document's tokens."""

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "LatentEffects":
        values = json.loads(data)
        pairs = {key: _paired(values[key]) for key in ("steer_kl", "ablate_target", "ablate_kl")}
        return cls(values["latent"], values["drawn"], tuple(_steered(v) for v in values["steered"]), **pairs)


@dataclass(frozen=True)
class Bench:
    """The panel and the neutral documents with their clean passes, shared by all latents."""

    site: Site
    sae: Sae
    config: BenchConfig
    seed: int
    items: tuple[ScoredItem, ...]
    prompts: tuple[Batch, ...]
    neutral: tuple[Batch, ...]
    clean_NV: Float[Tensor, "N V"]
    clean_neutral: tuple[Float[Tensor, "B W V"], ...]

    @classmethod
    @torch.no_grad()
    def prepare(
        cls,
        site: Site,
        sae: Sae,
        config: BenchConfig,
        *,
        items: Sequence[ScoredItem],
        neutral: Sequence[Window],
        seed: int,
    ) -> "Bench":
        """Run the clean passes once."""
        prompts = site.batches([site.window(item.ids) for item in items])
        documents = site.batches(neutral)
        return cls(
            site=site,
            sae=sae,
            config=config,
            seed=seed,
            items=tuple(items),
            prompts=tuple(prompts),
            neutral=tuple(documents),
            clean_NV=site.last(prompts, None),
            clean_neutral=tuple(site.every(documents, None)),
        )

    @torch.no_grad()
    def measure(self, chosen: Chosen) -> LatentEffects:
        """Steer and ablate one latent, and as many random directions each time."""
        direction_D = self.sae.W_dec[chosen.latent]
        # A stream of its own for each latent: the others, and a resumed run, change nothing.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + chosen.latent)
        controls_KD = random_directions(self.config.random_directions, len(direction_D), generator=generator).to(
            direction_D.device
        )
        own = self._raised(direction_D)
        reference = self.config.reference_strength * chosen.max_activation
        return LatentEffects(
            latent=chosen.latent,
            drawn=chosen.drawn,
            steered=tuple(
                self._steer(direction_D, controls_KD, own, strength, strength * chosen.max_activation)
                for strength in self.config.strengths
            ),
            steer_kl=_pair(
                self._neutral_kl(steer(direction_D, reference)),
                [self._neutral_kl(steer(control_D, reference)) for control_D in controls_KD],
            ),
            ablate_target=self._ablate_target(chosen, controls_KD, own),
            ablate_kl=self._ablate_kl(chosen.latent, controls_KD),
        )

    def _raised(self, direction_D: Float[Tensor, " D"]) -> Tensor:
        logits_V = self.site.model.unembed(direction_D[None])[0]
        return logits_V.topk(min(self.config.target_tokens, len(logits_V))).indices

    def _steer(
        self, direction_D: Tensor, controls_KD: Tensor, own: Tensor, strength: float, amount: float
    ) -> SteerEffects:
        change_NV = self._change(steer(direction_D, amount))
        changes_KNV = [self._change(steer(control_D, amount)) for control_D in controls_KD]
        on_own = [
            _mean_at(change, self._raised(control_D))
            for change, control_D in zip(changes_KNV, controls_KD, strict=True)
        ]
        moved, stayed = (lambda item: item.move), (lambda item: item.stay)
        return SteerEffects(
            strength=strength,
            amount=amount,
            target=_pair(_mean_at(change_NV, own), [_mean_at(change, own) for change in changes_KNV]),
            own_control=_floats(np.mean(on_own, axis=0)),
            moved=_pair(self._sizes(change_NV, moved), [self._sizes(c, moved) for c in changes_KNV]),
            stayed=_pair(self._sizes(change_NV, stayed), [self._sizes(c, stayed) for c in changes_KNV]),
        )

    def _change(self, edit: PairEdit) -> Float[Tensor, "N V"]:
        return self.site.last(self.prompts, edit) - self.clean_NV

    def _sizes(self, change_NV: Tensor, side: Callable[[ScoredItem], tuple[int, ...]]) -> np.ndarray:
        return np.array(
            [
                float(change_V[list(side(item))].abs().mean())
                for item, change_V in zip(self.items, change_NV, strict=True)
                if side(item)
            ]
        )

    def _neutral_kl(self, edit: PairEdit) -> np.ndarray:
        """Mean over each neutral document's counted tokens, in the caller's order."""
        means: list[Tensor] = []
        edited = self.site.every(self.neutral, edit)
        for batch, clean_BWV, edited_BWV in zip(self.neutral, self.clean_neutral, edited, strict=True):
            mask_BW = batch.mask_BW.to(clean_BWV.device)
            kl_BW = token_kl(clean_BWV, edited_BWV) * mask_BW
            means.append(kl_BW.sum(1) / mask_BW.sum(1).clamp(min=1))
        order = torch.cat([batch.order_B for batch in self.neutral]).argsort()
        return torch.cat(means).cpu()[order].double().numpy()

    def _ablate_target(self, chosen: Chosen, controls_KD: Tensor, own: Tensor) -> Paired:
        contexts = self.site.batches(chosen.contexts)
        clean_NV = self.site.last(contexts, None)

        def change(along_D: Tensor | None) -> np.ndarray:
            edit = ablate(self.sae, chosen.latent, along=along_D)
            return _mean_at(self.site.last(contexts, edit) - clean_NV, own)

        return _pair(change(None), [change(control_D) for control_D in controls_KD])

    def _ablate_kl(self, latent: int, controls_KD: Tensor) -> Paired:
        # Most latents are silent on most text, and taking away nothing changes nothing.
        if not self.site.fires(self.neutral, self.sae, latent):
            silent = np.zeros(sum(len(batch.lengths_B) for batch in self.neutral))
            return _pair(silent, [silent])
        # One random direction here: ablation's effect is small, and each pass reads every document.
        controls = [self._neutral_kl(ablate(self.sae, latent, along=controls_KD[0]))]
        return _pair(self._neutral_kl(ablate(self.sae, latent)), controls)


def _mean_at(change_NV: Float[Tensor, "N V"], tokens: Tensor) -> np.ndarray:
    return change_NV[:, tokens.to(change_NV.device)].mean(1).double().cpu().numpy()


def _pair(effect: np.ndarray, controls: Sequence[np.ndarray]) -> Paired:
    return Paired(_floats(effect), _floats(np.mean(controls, axis=0)))


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _paired(values: dict[str, list[float]]) -> Paired:
    return Paired(tuple(values["effect"]), tuple(values["control"]))


def _steered(values: dict) -> SteerEffects:
    return SteerEffects(
        strength=values["strength"],
        amount=values["amount"],
        target=_paired(values["target"]),
        own_control=tuple(values["own_control"]),
        moved=_paired(values["moved"]),
        stayed=_paired(values["stayed"]),
    )
