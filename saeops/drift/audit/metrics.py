"""The figures that an audit reports: one declaration each. docs/metrics.md says more on every one."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Float

from saeops.diagnostics.metrics import FIDELITY, L0, RECONSTRUCTION
from saeops.diagnostics.ratios import Ratio
from saeops.drift.audit.latents import GONE
from saeops.metrics import Metric, registry
from saeops.stats import (
    Bootstrap,
    Interval,
    UnitSums,
    difference_interval,
    ratio_interval,
    unpaired_difference,
    wilson,
)

Array = np.ndarray
_OURS = "saeops"


@dataclass(frozen=True)
class Compared:
    """What the figures of an audit, or of one of its nulls, are measured on."""

    latents: pd.DataFrame
    """AuditLatentTable, or as much of it as the null knows."""
    old: pd.DataFrame
    """AuditDocumentTable of one side."""
    new: pd.DataFrame
    """The same documents in the same order, unless `paired` is false."""
    paired: bool = True
    effects: pd.DataFrame = field(default_factory=pd.DataFrame)
    """AuditEffectTable; empty where none was measured."""


def _ratio(name: str) -> Ratio:
    measure = next(metric.measure for metric in (*RECONSTRUCTION, *L0, *FIDELITY) if metric.name == name)
    assert isinstance(measure, Ratio)
    return measure


def _change(name: str) -> Callable[[Compared, Bootstrap], Interval]:
    ratio = _ratio(name)

    def measure(compared: Compared, draw: Bootstrap) -> Interval:
        old, new = compared.old, compared.new
        if not compared.paired:
            return unpaired_difference(ratio(new, draw), ratio(old, draw))
        both = (old[ratio.counted].to_numpy() > 0) & (new[ratio.counted].to_numpy() > 0)
        sides = [UnitSums(*ratio.parts(side[both])) for side in (new, old)]
        return difference_interval(*sides, resamples=draw.resamples, seed=draw.seed)

    return measure


def _mean(values: Float[Array, " latent"], draw: Bootstrap) -> Interval:
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    return ratio_interval(known, np.ones(len(known)), resamples=draw.resamples, seed=draw.seed, unit="latents")


def _tested(column: str) -> Callable[[Compared, Bootstrap], Interval]:
    def measure(compared: Compared, draw: Bootstrap) -> Interval:
        latents = compared.latents
        return _mean(latents.loc[latents["tested"], column].to_numpy(dtype=np.float64), draw)

    return measure


def _gone(compared: Compared, _: Bootstrap) -> Interval:
    tested = compared.latents[compared.latents["tested"]]
    return wilson(int(tested["verdict"].isin(GONE).sum()), len(tested), unit="latents")


def _density(compared: Compared, draw: Bootstrap) -> Interval:
    tested = compared.latents[compared.latents["tested"] & (compared.latents["n_new"] > 0)]
    return _mean(np.abs(np.log2(tested["density_ratio"].to_numpy(dtype=np.float64))), draw)


def _label_change(compared: Compared, draw: Bootstrap) -> Interval:
    latents = compared.latents
    change = latents["label_confidence_new"] - latents["label_confidence_old"]
    return _mean(change.to_numpy(dtype=np.float64), draw)


def _effect_change(compared: Compared, draw: Bootstrap) -> Interval:
    effects = compared.effects
    steered = effects[effects["metric"] == "steer_target_logprob"] if len(effects) else effects
    return _mean(steered["difference"].to_numpy(dtype=np.float64) if len(steered) else np.zeros(0), draw)


CHANGES: tuple[Metric[Compared], ...] = (
    Metric(
        "explained_variance_change",
        "1",
        "higher",
        "EV on the new model − EV on the old, each with its own μ",
        _OURS,
        "(−∞, ∞)",
        _change("explained_variance"),
    ),
    Metric(
        "l0_change",
        "latents/token",
        "none",
        "L0 on the new model − L0 on the old",
        _OURS,
        "(−∞, ∞)",
        _change("l0"),
    ),
)
SPLICED: tuple[Metric[Compared], ...] = (
    Metric(
        "delta_ce_change_nats",
        "nats",
        "lower",
        "ΔCE on the new model − ΔCE on the old",
        _OURS,
        "(−∞, ∞)",
        _change("delta_ce_nats"),
    ),
    Metric(
        "kl_change_nats",
        "nats",
        "lower",
        "KL on the new model − KL on the old",
        _OURS,
        "(−∞, ∞)",
        _change("kl_nats"),
    ),
)
LATENTS: tuple[Metric[Compared], ...] = (
    Metric(
        "latents_gone",
        "1",
        "lower",
        "share of the tested latents with verdict weakened, changed or lost",
        _OURS,
        "[0, 1]",
        _gone,
    ),
    Metric(
        "density_shift_octaves",
        "octaves",
        "lower",
        "mean over tested latents that still fire of |log₂(density new / density old)|",
        _OURS,
        "[0, ∞)",
        _density,
    ),
    Metric(
        "histogram_distance_octaves",
        "octaves",
        "lower",
        "mean over tested latents of Σ |F_new − F_old| · bin width, F of log₂ activation where it fires",
        "Vallender 1974, Theory of Probability and its Applications 18:784",
        "[0, ∞)",
        _tested("histogram_distance"),
    ),
)
SAME_TOKENS: tuple[Metric[Compared], ...] = (
    Metric(
        "latent_correlation",
        "1",
        "higher",
        "mean over tested latents of Pearson's r of old and new activation",
        "Devlin, Gnanadesikan & Kettenring 1975, Biometrika 62:531, for the interval of each",
        "[−1, 1]",
        _tested("correlation"),
    ),
    Metric(
        "context_overlap",
        "1",
        "higher",
        "mean over tested latents of |top windows old ∩ new| / |top windows old|",
        _OURS,
        "[0, 1]",
        _tested("context_overlap"),
    ),
)
RETESTED: tuple[Metric[Compared], ...] = (
    Metric(
        "label_confidence_change",
        "1",
        "higher",
        "mean over labels of confidence on the new model's firings − on the old model's",
        _OURS,
        "[−1, 1]",
        _label_change,
    ),
    Metric(
        "steering_effect_change_nats",
        "nats",
        "none",
        "mean over latents of the effect of steering on the new model − on the old",
        _OURS,
        "(−∞, ∞)",
        _effect_change,
    ),
)
AUDIT = (*CHANGES, *SPLICED, *LATENTS, *SAME_TOKENS, *RETESTED)
METRICS = registry(AUDIT)
