"""The figures of feature quality: one declaration each. docs/metrics.md says more on every one."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from saeops.diagnostics.quality.redundancy import NO_LATENT
from saeops.metrics import Metric, measure_all
from saeops.stats import Bootstrap, Interval, ratio_interval, wilson

Array = np.ndarray

REDUNDANT_ABOVE = 0.9
"""Two latents whose decoder rows are nearer than this say one thing twice."""
STABLE_FROM = 0.7
"""A latent recurs in another SAE from this cosine on (Paulo & Belrose 2025)."""


@dataclass(frozen=True)
class LatentQuality:
    """What was measured of each latent (or of each random direction, in a null); NaN where there is no value.

    None: not measured at all.
    """

    coherence: Float[Array, " F"] | None = None
    ablation_sparsity: Float[Array, " F"] | None = None
    logit_specificity: Float[Array, " F"] | None = None
    max_cosine: Float[Array, " F"] | None = None
    max_cosine_latent: Int[Array, " F"] | None = None
    """`NO_LATENT` where there is none."""
    seed_cosine: Float[Array, " F"] | None = None

    def frame(self, latents: int) -> pd.DataFrame:
        """The nullable columns of DiagnosedLatentTable, a row a latent."""
        columns = {}
        for name in (field.name for field in fields(self)):
            values = getattr(self, name)
            columns[name] = np.full(latents, np.nan) if values is None else values
        frame = pd.DataFrame(columns)
        partner = frame["max_cosine_latent"]
        return frame.assign(max_cosine_latent=partner.where(partner != NO_LATENT).astype("Int32"))


@dataclass(frozen=True)
class Mean:
    """The mean over the latents that have a value, with a bootstrap over latents."""

    column: str

    def __call__(self, quality: LatentQuality, draw: Bootstrap) -> Interval:
        values = _values(quality, self.column)
        ones = np.ones(len(values))
        mean = ratio_interval(values, ones, resamples=draw.resamples, seed=draw.seed, unit="latents")
        return _counting_absent(mean, quality, self.column)


@dataclass(frozen=True)
class ShareFrom:
    """Among the latents that have a value, the share in which it is `least` or more."""

    column: str
    least: float

    def __call__(self, quality: LatentQuality, _: Bootstrap) -> Interval:
        values = _values(quality, self.column)
        share = wilson(int((values >= self.least).sum()), len(values), unit="latents")
        return _counting_absent(share, quality, self.column)


def _values(quality: LatentQuality, column: str) -> Float[Array, " latent"]:
    values = getattr(quality, column)
    return np.zeros(0) if values is None else values[~np.isnan(values)]


def _counting_absent(interval: Interval, quality: LatentQuality, column: str) -> Interval:
    values = getattr(quality, column)
    absent = 0 if values is None else int(np.isnan(values).sum())
    if not absent:
        return interval
    note = f"{absent} of {len(values)} latents have no value"
    return replace(interval, note=f"{interval.note}; {note}" if interval.note else note)


_GAO = "Gao et al. 2024, arXiv 2406.04093, §4.5"

BY_COLUMN: Mapping[str, tuple[Metric[LatentQuality], ...]] = {
    "coherence": (
        Metric(
            "coherence",
            "1",
            "higher",
            "mean over latents of (mean cosine of its contexts − mean cosine of any contexts), across documents",
            "saeops",
            "[−1, 1]",
            Mean("coherence"),
        ),
    ),
    "ablation_sparsity": (
        Metric(
            "ablation_sparsity",
            "1",
            "lower",
            "mean over sampled latents of (Σ|Δ|)² / (Σ Δ² · V·T), Δ the logit differences when it is ablated",
            _GAO,
            "(0, 1]",
            Mean("ablation_sparsity"),
        ),
    ),
    "logit_specificity": (
        Metric(
            "logit_specificity",
            "1",
            "lower",
            "mean over living latents of (Σ|w|)² / (Σ w² · V), w the decoder row’s direct logit effects",
            "saeops, the measure of ablation_sparsity",
            "(0, 1]",
            Mean("logit_specificity"),
        ),
    ),
    "max_cosine": (
        Metric(
            "max_cosine",
            "1",
            "none",
            "mean over living latents of the largest decoder cosine with another",
            "saeops",
            "[−1, 1]",
            Mean("max_cosine"),
        ),
        Metric(
            "redundant_fraction",
            "1",
            "lower",
            "share of living latents whose largest decoder cosine with another is ≥ 0.9",
            "saeops",
            "[0, 1]",
            ShareFrom("max_cosine", REDUNDANT_ABOVE),
        ),
    ),
    "seed_cosine": (
        Metric(
            "seed_cosine",
            "1",
            "higher",
            "mean over living latents of the decoder cosine with the mutual nearest neighbour, 0 without one",
            "saeops",
            "[−1, 1]",
            Mean("seed_cosine"),
        ),
        Metric(
            "seed_stable_fraction",
            "1",
            "higher",
            "share of living latents whose seed_cosine is ≥ 0.7",
            "Paulo & Belrose 2025, arXiv 2501.16615; here by decoders alone",
            "[0, 1]",
            ShareFrom("seed_cosine", STABLE_FROM),
        ),
    ),
}
"""The figures that each column gives."""

QUALITY = tuple(metric for metrics in BY_COLUMN.values() for metric in metrics)


def quality_metrics(quality: LatentQuality, draw: Bootstrap) -> dict[str, Interval]:
    """The figures of every column in which at least one latent has a value."""
    measured: dict[str, Interval] = {}
    for column, metrics in BY_COLUMN.items():
        if len(_values(quality, column)):
            measured |= measure_all(metrics, quality, draw)
    return measured
