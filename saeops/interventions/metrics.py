"""The figures that the bench reports: one declaration each. docs/metrics.md says more on every one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from saeops.interventions.crossed import crossed_interval
from saeops.interventions.effects import LatentEffects, Paired, SteerEffects
from saeops.interventions.tabulate import (
    difference,
    over_latents,
    over_units,
    pooled_rho,
    specificity,
)
from saeops.metrics import Metric, registry
from saeops.stats import Bootstrap, Interval, wilson

Array = np.ndarray
_OURS = "saeops"
_SCALING = "Templeton et al. 2024, Scaling Monosemanticity (clamping); controls by saeops"


@dataclass(frozen=True)
class Benched:
    """What the figures are measured on."""

    effects: Sequence[LatentEffects]
    reference_strength: float
    """The strength at which headline figures are taken."""

    @cached_property
    def at(self) -> list[SteerEffects]:
        """Steering at the reference strength, a latent."""
        return [next(s for s in e.steered if s.strength == self.reference_strength) for e in self.effects]

    @cached_property
    def on_same(self) -> list[Array]:
        """Effect less that of random directions on the same tokens, prompts of each latent."""
        return [difference(s.target) for s in self.at]

    @cached_property
    def on_own(self) -> list[Array]:
        """Effect less that of random directions each on its own tokens, prompts of each latent."""
        return [np.array(s.target.effect) - np.array(s.own_control) for s in self.at]

    @cached_property
    def specific(self) -> list[Paired]:
        """By how much more the log-probs moved that should."""
        return [specificity(s) for s in self.at]


def _over(rows: Sequence[Sequence[float] | Array], unit: str, draw: Bootstrap) -> Interval:
    return crossed_interval(np.array(rows), unit=unit, resamples=draw.resamples, seed=draw.seed)


def _over_latents(rows: Sequence[Sequence[float] | Array], draw: Bootstrap) -> Interval:
    """Of each latent's own mean: latents have contexts of their own, which no other shares."""
    return over_latents([float(np.mean(row)) for row in rows], resamples=draw.resamples, seed=draw.seed)


def _beats(differences: Sequence[Array], draw: Bootstrap) -> Interval:
    lows = [over_units(d, resamples=draw.resamples, seed=draw.seed, unit="prompts").low for d in differences]
    return wilson(sum(low is not None and low > 0 for low in lows), len(lows), unit="latents")


STEERING: tuple[Metric[Benched], ...] = (
    Metric(
        "steering_effect_nats",
        "nats",
        "higher",
        "mean over latents and prompts of the change in mean log-prob of the latent's own tokens, steered at the"
        " reference strength",
        _SCALING,
        "(−∞, ∞)",
        lambda b, draw: _over([s.target.effect for s in b.at], "prompts", draw),
    ),
    Metric(
        "steering_vs_random_nats",
        "nats",
        "higher",
        "steering_effect_nats − the same tokens' change under equal-norm random directions",
        _OURS,
        "(−∞, ∞)",
        lambda b, draw: _over(b.on_same, "prompts", draw),
    ),
    Metric(
        "steering_vs_random_own_nats",
        "nats",
        "higher",
        "steering_effect_nats − the change of each random direction's own raised tokens under that direction",
        _OURS,
        "(−∞, ∞)",
        lambda b, draw: _over(b.on_own, "prompts", draw),
    ),
    Metric(
        "steering_beats_random",
        "1",
        "higher",
        "share of tested latents whose difference to random directions, on the same tokens, has a lower bound > 0",
        _OURS,
        "[0, 1]",
        lambda b, draw: _beats(b.on_same, draw),
    ),
    Metric(
        "steering_beats_random_own",
        "1",
        "higher",
        "share of tested latents whose difference to random directions, each on its own tokens, has a lower"
        " bound > 0",
        _OURS,
        "[0, 1]",
        lambda b, draw: _beats(b.on_own, draw),
    ),
    Metric(
        "dose_response_rho",
        "1",
        "higher",
        "mean over latents of Spearman's ρ between strength (0 included) and steering effect",
        _OURS,
        "[−1, 1]",
        lambda b, draw: pooled_rho(b.effects, **vars(draw)),
    ),
)

ABLATION: tuple[Metric[Benched], ...] = (
    Metric(
        "ablation_effect_nats",
        "nats",
        "lower",
        "mean over latents and their strongest contexts of the change in mean log-prob of the latent's own tokens"
        " when it is ablated",
        _OURS,
        "(−∞, ∞)",
        lambda b, draw: _over_latents([e.ablate_target.effect for e in b.effects], draw),
    ),
    Metric(
        "ablation_vs_random_nats",
        "nats",
        "lower",
        "ablation_effect_nats − the change when as much is taken away along random directions",
        _OURS,
        "(−∞, ∞)",
        lambda b, draw: over_latents(
            [float(np.mean(difference(e.ablate_target))) for e in b.effects], **vars(draw)
        ),
    ),
)

COST: tuple[Metric[Benched], ...] = (
    Metric(
        "off_target_kl_nats",
        "nats",
        "lower",
        "mean over latents and neutral documents of KL(clean ‖ steered at the reference strength) per token",
        _OURS,
        "[0, ∞)",
        lambda b, draw: _over([e.steer_kl.effect for e in b.effects], "documents", draw),
    ),
    Metric(
        "off_target_kl_random_nats",
        "nats",
        "none",
        "off_target_kl_nats of equal-norm random directions",
        _OURS,
        "[0, ∞)",
        lambda b, draw: _over([e.steer_kl.control for e in b.effects], "documents", draw),
    ),
    Metric(
        "off_target_kl_vs_random_nats",
        "nats",
        "lower",
        "off_target_kl_nats − off_target_kl_random_nats",
        _OURS,
        "(−∞, ∞)",
        lambda b, draw: _over([difference(e.steer_kl) for e in b.effects], "documents", draw),
    ),
    Metric(
        "ablation_off_target_kl_nats",
        "nats",
        "lower",
        "mean over latents and neutral documents of KL(clean ‖ ablated) per token",
        _OURS,
        "[0, ∞)",
        lambda b, draw: _over([e.ablate_kl.effect for e in b.effects], "documents", draw),
    ),
)

SPECIFICITY: tuple[Metric[Benched], ...] = (
    Metric(
        "panel_specificity_nats",
        "nats",
        "higher",
        "mean over latents and prompts of mean|Δ log-prob| of what should move − of what should not, at the"
        " reference strength",
        _OURS,
        "(−∞, ∞)",
        lambda b, draw: _over([s.effect for s in b.specific], "prompts", draw),
    ),
    Metric(
        "panel_specificity_vs_random_nats",
        "nats",
        "higher",
        "panel_specificity_nats − the same under equal-norm random directions",
        _OURS,
        "(−∞, ∞)",
        lambda b, draw: _over([difference(s) for s in b.specific], "prompts", draw),
    ),
)

INTERVENTIONS = (*STEERING, *ABLATION, *COST, *SPECIFICITY)

METRICS = registry(INTERVENTIONS)
