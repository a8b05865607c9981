"""Interventions measured again: what a latent does to the new model, beside what it does to the old."""

from collections.abc import Sequence

import pandas as pd

from saeops.interventions.config import BenchConfig
from saeops.interventions.effects import LatentEffects
from saeops.stats import UnitSums, difference_interval


def remeasured(bench: BenchConfig, *, documents: int) -> BenchConfig:
    """The bundle's bench at its reference strength alone, with one random direction: what a comparison needs."""
    return bench.model_copy(
        update={
            "strengths": (bench.reference_strength,),
            "random_directions": 1,
            "neutral_documents": documents,
        }
    )


def effect_rows(
    old: Sequence[LatentEffects], new: Sequence[LatentEffects], *, resamples: int, seed: int
) -> pd.DataFrame:
    """AuditEffectTable: each latent's effects on both models, paired by prompt and by context."""
    rows = []
    for before, after in zip(old, new, strict=True):
        pairs = {
            ("steer_target_logprob", "prompts"): (before.steered[0].target.effect, after.steered[0].target.effect),
            ("ablate_target_logprob", "contexts"): (before.ablate_target.effect, after.ablate_target.effect),
        }
        for (metric, unit), (first, second) in pairs.items():
            if not first:
                continue
            frame = pd.DataFrame({"old": first, "new": second})
            ones = pd.Series(1.0, index=frame.index).to_numpy()
            change = difference_interval(
                UnitSums(frame["new"].to_numpy(), ones),
                UnitSums(frame["old"].to_numpy(), ones),
                resamples=resamples,
                seed=seed,
                unit=unit,
            )
            rows.append(
                {
                    "latent": before.latent,
                    "metric": metric,
                    "old": float(frame["old"].mean()),
                    "new": float(frame["new"].mean()),
                    "difference": change.point,
                    "difference_low": change.low,
                    "difference_high": change.high,
                    "n": change.n,
                    "unit": unit,
                }
            )
    columns = ["latent", "metric", "old", "new", "difference", "difference_low", "difference_high", "n", "unit"]
    frame = pd.DataFrame(rows, columns=columns)
    types = {"latent": "int32", "n": "int32", "difference_low": "float64", "difference_high": "float64"}
    return frame.astype(types)
