"""From raw effects to the table, each figure with its interval.

One latent's figure is resampled over its prompts, contexts or documents. A
figure over latents is resampled over latents and, where all latents share
them, over units too: both were drawn, so both are uncertain.

# L latent, U unit, R resample, S strength
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import rankdata

from saeops.interventions.effects import LatentEffects, Paired, SteerEffects
from saeops.interventions.schema import EffectTable
from saeops.stats import MIN_UNITS, Interval, percentile_interval, ratio_interval, resample_counts
from saeops.tables import check_table

Array = np.ndarray


def effects_table(effects: Sequence[LatentEffects], *, resamples: int, seed: int) -> pd.DataFrame:
    """One row a latent, kind, strength and metric (EffectTable)."""
    rows = [
        {"latent": e.latent, "drawn": e.drawn, **row}
        for e in effects
        for row in _latent_rows(e, resamples=resamples, seed=seed)
    ]
    frame = pd.DataFrame(rows).astype({"latent": "int32", "n": "int32"})
    bounds = [column for column in frame if str(column).endswith(("low", "high"))]
    return check_table(frame.astype(dict.fromkeys(bounds, "float64")), EffectTable, name="effects")


def specificity(steered: SteerEffects) -> Paired:
    """By how much more the log-probs moved that should, a prompt."""
    effect = np.array(steered.moved.effect) - np.array(steered.stayed.effect)
    control = np.array(steered.moved.control) - np.array(steered.stayed.control)
    return Paired(tuple(effect.tolist()), tuple(control.tolist()))


def spearman(x_S: Sequence[float], y_RS: Float[Array, "R S"]) -> Float[Array, " R"]:
    """Spearman's ρ of each row of y with x (average ranks for ties); 0 for a row that does not vary."""
    x = rankdata(x_S) - (len(x_S) + 1) / 2
    y = rankdata(y_RS, axis=1) - (len(x_S) + 1) / 2
    scale = np.sqrt((x**2).sum() * (y**2).sum(axis=1))
    return np.divide(y @ x, scale, out=np.zeros(len(y)), where=scale > 0)


def over_latents(values: Sequence[float], *, resamples: int, seed: int) -> Interval:
    """The mean of one value a latent, resampled over latents."""
    return over_units(np.array(values), resamples=resamples, seed=seed, unit="latents")


def pooled_rho(effects: Sequence[LatentEffects], *, resamples: int, seed: int) -> Interval:
    """Mean over latents of ρ between strength and effect, resampling latents and prompts."""
    prompts = len(effects[0].steered[0].target.effect)
    latents_RL = resample_counts(len(effects), resamples=resamples, seed=seed)
    units_RU = resample_counts(prompts, resamples=resamples, seed=seed + 1)
    everyone_1U = np.ones((1, prompts))
    rho_RL = np.stack([_rho(e, units_RU, _effect) for e in effects], axis=1)
    point = float(np.mean([_rho(e, everyone_1U, _effect) for e in effects]))
    draws_R = (latents_RL * rho_RL).sum(axis=1) / len(effects)
    if prompts < MIN_UNITS:
        return Interval(point, None, None, len(effects), "latents", note=f"fewer than {MIN_UNITS} prompts")
    return percentile_interval(point, draws_R, n=len(effects), unit="latents")


def _latent_rows(effects: LatentEffects, *, resamples: int, seed: int) -> list[dict[str, Any]]:
    def row(kind: str, strength: float, metric: str, pair: Paired, unit: str) -> dict[str, Any]:
        parts = {
            "": np.array(pair.effect),
            "control_": np.array(pair.control),
            "difference_": difference(pair),
        }
        intervals = {
            prefix: over_units(values, resamples=resamples, seed=seed, unit=unit)
            for prefix, values in parts.items()
        }
        return _row(kind, strength, metric, intervals)

    rows = []
    for s in effects.steered:
        rows.append(row("steer", s.strength, "target_logprob", s.target, "prompts"))
        on_own = Paired(s.target.effect, s.own_control)
        rows.append(row("steer", s.strength, "target_logprob_vs_own", on_own, "prompts"))
        if s.moved.effect:
            rows.append(row("steer", s.strength, "panel_moved", s.moved, "prompts"))
            rows.append(row("steer", s.strength, "panel_stayed", s.stayed, "prompts"))
            rows.append(row("steer", s.strength, "panel_specificity", specificity(s), "prompts"))
    reference = effects.steered[len(effects.steered) // 2].strength
    rows.append(row("steer", reference, "off_target_kl", effects.steer_kl, "documents"))
    rows.append(_rho_row(effects, resamples=resamples, seed=seed))
    if effects.ablate_target.effect:
        rows.append(row("ablate", 0.0, "target_logprob", effects.ablate_target, "contexts"))
    rows.append(row("ablate", 0.0, "off_target_kl", effects.ablate_kl, "documents"))
    return rows


def _rho_row(effects: LatentEffects, *, resamples: int, seed: int) -> dict[str, Any]:
    prompts = len(effects.steered[0].target.effect)
    units_RU = resample_counts(prompts, resamples=resamples, seed=seed)
    everyone_1U = np.ones((1, prompts))
    draws = {"": _rho(effects, units_RU, _effect), "control_": _rho(effects, units_RU, _control)}
    points = {"": _rho(effects, everyone_1U, _effect), "control_": _rho(effects, everyone_1U, _control)}
    draws["difference_"] = draws[""] - draws["control_"]
    points["difference_"] = points[""] - points["control_"]
    intervals = {
        prefix: percentile_interval(float(points[prefix][0]), draws[prefix], n=prompts, unit="prompts")
        for prefix in draws
    }
    return _row("steer", 0.0, "dose_response_rho", intervals)


def _rho(
    effects: LatentEffects, weights_RU: Float[Array, "R U"], side: Callable[[Paired], Array]
) -> Float[Array, " R"]:
    """ρ between strength and mean effect; no steering, no effect: (0, 0) is a point too."""
    values_SU = np.array([side(s.target) for s in effects.steered])
    means_RS = weights_RU @ values_SU.T / weights_RU.sum(axis=1, keepdims=True)
    strengths = [0.0, *(s.strength for s in effects.steered)]
    return spearman(strengths, np.concatenate([np.zeros((len(means_RS), 1)), means_RS], axis=1))


def _row(kind: str, strength: float, metric: str, intervals: dict[str, Interval]) -> dict[str, Any]:
    values = {
        f"{prefix}{bound}": getattr(interval, bound)
        for prefix, interval in intervals.items()
        for bound in ("point", "low", "high")
    }
    whole = intervals[""]
    return {"kind": kind, "strength": strength, "metric": metric, **values, "n": whole.n, "unit": whole.unit}


def over_units(values: Array, *, resamples: int, seed: int, unit: str) -> Interval:
    """The mean over units of one latent, resampling them."""
    return ratio_interval(values, np.ones(len(values)), resamples=resamples, seed=seed, unit=unit)


def _effect(pair: Paired) -> Array:
    return np.array(pair.effect)


def _control(pair: Paired) -> Array:
    return np.array(pair.control)


def difference(pair: Paired) -> Array:
    """Effect less control, a unit."""
    return _effect(pair) - _control(pair)
