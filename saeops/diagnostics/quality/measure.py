"""All of feature quality in one call, with the nulls that need no other SAE.

# F latent, E width of a decoder row, G latent of another SAE, R decoder row or random direction
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saeops.activations.windows import Window
from saeops.diagnostics.fidelity import Begin
from saeops.diagnostics.quality.ablation import AblationSparsity, ablation_sparsity, firings_to_ablate
from saeops.diagnostics.quality.coherence import Bags, coherence
from saeops.diagnostics.quality.metrics import LatentQuality
from saeops.diagnostics.quality.redundancy import redundancy
from saeops.diagnostics.quality.specificity import Unembed, logit_specificity
from saeops.diagnostics.quality.stability import seed_cosine
from saeops.refs import writes_to_residual
from saeops.sae.canonical import Sae

Array = np.ndarray

RANDOM_DIRECTIONS = 1000
"""Directions that the null of logit specificity looks at."""


@dataclass(frozen=True)
class Latents:
    """An SAE's latents, and where they fire."""

    sae: Sae
    living_F: Bool[Array, " F"]
    """Those that fire on the eval split."""
    contexts: pd.DataFrame
    """ContextTable."""
    windows: Sequence[Window]
    """Of the split that the contexts are of."""
    prepended: int
    """Tokens put before each window, 0 or 1."""
    other_seeds: Sequence[Float[Tensor, "G E"]]
    """Decoders of SAEs trained alike from other seeds; none: stability is not measured."""


@dataclass(frozen=True)
class Model:
    """The model that the SAE was trained on, as far as its latents' effects need it."""

    begin: Begin
    unembed: Unembed
    vocabulary: int


@dataclass(frozen=True)
class Quality:
    """What each latent is worth, and the same figures where there is nothing to find."""

    latents: LatentQuality
    nulls: Mapping[str, LatentQuality]
    """`shuffled` contexts and `random_directions`; an SAE that is itself a null is measured like any other."""


def quality(
    latents: Latents, model: Model, *, ablated: int, seed: int, advance: Callable[[int], object] = lambda _: None
) -> Quality:
    """Every column of LatentQuality that the SAE's site and the seeds at hand allow.

    Args:
        ablated: living latents drawn at random to be ablated.
        advance: told the firings ablated, at most `WINDOWS` a latent.
    """
    sae, bags, F = latents.sae, Bags.of(latents.contexts), latents.sae.meta.d_sae
    effects = _ablate(latents, model.begin, ablated=ablated, seed=seed, advance=advance)
    near = redundancy(sae.W_dec, latents.living_F)
    return Quality(
        LatentQuality(
            coherence=coherence(bags, F),
            ablation_sparsity=effects.own_F,
            logit_specificity=_of_living(latents, _specificity(latents, model, sae.W_dec)),
            max_cosine=near.cosine_F,
            max_cosine_latent=near.latent_F,
            seed_cosine=_stability(latents),
        ),
        {
            "shuffled": LatentQuality(coherence=coherence(bags.shuffled(seed), F)),
            "random_directions": LatentQuality(
                ablation_sparsity=effects.random_F,
                logit_specificity=_specificity(latents, model, _random_directions(sae, seed)),
            ),
        },
    )


def _ablate(
    latents: Latents, begin: Begin, *, ablated: int, seed: int, advance: Callable[[int], object]
) -> AblationSparsity:
    living = np.flatnonzero(latents.living_F)
    drawn = np.random.default_rng(seed).permutation(living)[:ablated].tolist()
    firings = firings_to_ablate(latents.contexts, latents.windows, drawn, shift=latents.prepended)
    return ablation_sparsity(begin, latents.sae, firings, seed=seed, advance=advance)


def _specificity(latents: Latents, model: Model, rows: Float[Tensor, "R E"]) -> Float[Array, " R"] | None:
    """None where decoder rows are no directions of the residual stream."""
    if not writes_to_residual(latents.sae.meta.sites.target):
        return None
    return logit_specificity(model.unembed, rows, vocabulary=model.vocabulary)


def _of_living(latents: Latents, value_F: Float[Array, " F"] | None) -> Float[Array, " F"] | None:
    return None if value_F is None else np.where(latents.living_F, value_F, np.nan)


def _random_directions(sae: Sae, seed: int) -> Float[Tensor, "R E"]:
    generator = torch.Generator().manual_seed(seed)
    drawn_RE = torch.randn(RANDOM_DIRECTIONS, sae.meta.width_out, generator=generator)
    return torch.nn.functional.normalize(drawn_RE, dim=1)


def _stability(latents: Latents) -> Float[Array, " F"] | None:
    if not latents.other_seeds:
        return None
    return seed_cosine(latents.sae.W_dec, latents.other_seeds, latents.living_F)
