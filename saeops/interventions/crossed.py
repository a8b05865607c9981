"""Means over latents and units that both were drawn: two ways in which a figure is uncertain.

# L latent, U unit (a prompt or a document), R resample
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from saeops.stats import MIN_UNITS, ROUNDING, Interval, quotients, resample_counts, studentised_interval

Array = np.ndarray


@dataclass(frozen=True)
class _Drawn:
    """Means of resampled tables, less the table's own, and their standard errors."""

    shift_R: Float[Array, " R"]
    error_R: Float[Array, " R"]


def crossed_interval(
    values_LU: Float[Array, "L U"], *, unit: str, resamples: int, seed: int, level: float = 0.95
) -> Interval:
    """The mean over latents and units, resampling both (Owen 2007, the pigeonhole bootstrap), studentised.

    Unstudentised it covers too often where neither latents nor units matter,
    and too rarely where there are few: docs/decisions/intervals.md.
    """
    L, U = values_LU.shape if values_LU.ndim == 2 else (len(values_LU), 0)
    if values_LU.size == 0:
        return Interval(0.0, None, None, L, "latents", level, note=f"no {unit}")
    point = float(values_LU.mean())
    for size, noun in ((U, unit), (L, "latents")):
        if size < MIN_UNITS:
            note = f"fewer than {MIN_UNITS} {noun}"
            return Interval(point, None, None, L, "latents", level, note=note)
    apart_LU = values_LU - point
    error = float(_moments(apart_LU, np.ones((1, L)), np.ones((1, U))).error_R[0])
    if error <= ROUNDING * float(np.abs(values_LU).mean()):
        return Interval(point, point, point, L, "latents", level, note="all latents alike")
    latents_RL = resample_counts(L, resamples=resamples, seed=seed)
    units_RU = resample_counts(U, resamples=resamples, seed=seed + 1)
    drawn = _moments(apart_LU, latents_RL, units_RU)
    t_R = quotients(drawn.shift_R, drawn.error_R, error=error)
    return studentised_interval(point, error, t_R, n=L, unit="latents", level=level)


def _moments(
    apart_LU: Float[Array, "L U"], latents_RL: Float[Array, "R L"], units_RU: Float[Array, "R U"]
) -> _Drawn:
    """Mean and standard error of tables that hold each latent and unit as often as the counts say.

    The variance of the mean of a two-way table whose rows and columns both are
    random is (MS_latents + MS_units − MS_rest) / LU (Searle, Casella &
    McCulloch 1992, ch. 4); where that is below MS_rest / LU, chance alone, the
    latter.
    """
    L, U = apart_LU.shape
    by_latent_RL, by_unit_RU = units_RU @ apart_LU.T / U, latents_RL @ apart_LU / L
    mean_R = (latents_RL * by_latent_RL).sum(1) / L
    latents_R = U * ((latents_RL * by_latent_RL**2).sum(1) - L * mean_R**2)
    units_R = L * ((units_RU * by_unit_RU**2).sum(1) - U * mean_R**2)
    rest_R = ((latents_RL @ apart_LU**2) * units_RU).sum(1) - L * U * mean_R**2 - latents_R - units_R
    chance_R = rest_R / ((L - 1) * (U - 1))
    variance_R = np.maximum(latents_R / (L - 1) + units_R / (U - 1) - chance_R, chance_R) / (L * U)
    return _Drawn(mean_R, np.sqrt(np.maximum(variance_R, 0)))
