"""Planted dictionaries: how many true features a trained decoder holds, ours beside a peer at equal tokens.

# T token, D d_model, F latent, P planted feature
"""

from collections.abc import Callable
from itertools import islice
from statistics import fmean
from typing import Any

import torch

from benchmarks.recipe import Problem, Recipe
from benchmarks.roster import build
from tests.planted import Planted, plant, plant_hierarchy, plant_pairs, plant_zipf

MATCH = 0.9
"""Cosine above which a decoder row is a planted feature."""
SETTINGS: dict[str, Callable[..., Planted]] = {
    "easy": plant,
    "zipf": plant_zipf,
    "pairs": plant_pairs,
    "hierarchy": plant_hierarchy,
}


def recovered(planted: Planted, decoder_FD: torch.Tensor) -> float:
    """Share of planted directions that some decoder row matches."""
    rows_FD = torch.nn.functional.normalize(decoder_FD, dim=1)
    return float(((planted.directions @ rows_FD.t()).amax(1) > MATCH).float().mean())


def recover(
    setting: str,
    recipes: list[Recipe],
    problem: Problem,
    *,
    n_features: int,
    distinct_tokens: int,
    seeds: list[int],
) -> dict[str, Any]:
    """Train each recipe on one planted dictionary, once a seed of the weights."""
    planted = SETTINGS[setting](
        n_features=n_features, d_model=problem.d_model, tokens=distinct_tokens, active=problem.k
    )
    rows = []
    for recipe in recipes:
        shares = []
        for seed in seeds:
            contender = build(problem.model_copy(update={"seed": seed}), recipe, planted.x[:16_384])
            contender.ready()
            for batch in islice(planted.batches(problem.batch)(0), problem.steps):
                contender.step(batch.x_TD)
            contender.finish()
            shares.append(recovered(planted, contender.decoder()))
        rows.append({**contender.parts(), "recovered": fmean(shares), "low": min(shares), "high": max(shares)})
    return {
        "setting": setting,
        "n_features": n_features,
        "problem": problem.model_dump(),
        "seeds": seeds,
        "rows": rows,
    }
