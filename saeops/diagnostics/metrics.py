"""The figures that diagnostics report: one declaration each. docs/metrics.md says more on every one."""

from typing import Any

import pandas as pd

from saeops.diagnostics.concepts.metrics import ABSORPTION, PROBES
from saeops.diagnostics.quality.metrics import QUALITY
from saeops.diagnostics.ratios import Ratio, column, minus
from saeops.diagnostics.sparsity import Densities, dead_fraction, dense_fraction, l0_quantile
from saeops.metrics import Metric, registry

_OURS = "saeops"

RECONSTRUCTION: tuple[Metric[pd.DataFrame], ...] = (
    Metric(
        "explained_variance",
        "1",
        "higher",
        "1 − Σ‖x − x̂‖² / Σ‖x − μ‖², μ the mean of the evaluated tokens",
        _OURS,
        "(−∞, 1]",
        Ratio(column("error"), column("spread"), complement=True),
    ),
    Metric(
        "mse",
        "activation²",
        "lower",
        "Σ‖x − x̂‖² / (T·D)",
        _OURS,
        "[0, ∞)",
        Ratio(column("error"), column("values")),
    ),
    Metric(
        "normalised_mse",
        "1",
        "lower",
        "Σ‖x − x̂‖² / Σ‖x‖²",
        "openai/sparse_autoencoder, loss.py; here a ratio of sums",
        "[0, ∞)",
        Ratio(column("error"), column("square")),
    ),
    Metric(
        "cosine",
        "1",
        "higher",
        "mean over tokens of x·x̂ / (‖x‖·‖x̂‖)",
        _OURS,
        "[−1, 1]",
        Ratio(column("cosine"), column("tokens")),
    ),
    Metric(
        "relative_reconstruction_bias",
        "1",
        "none",
        "Σ‖x̂‖² / Σ x·x̂",
        "Rajamanoharan et al. 2024, arXiv 2404.16014",
        "(−∞, ∞)",
        Ratio(column("norm_out"), column("dot")),
    ),
)

L0: tuple[Metric[pd.DataFrame], ...] = (
    Metric(
        "l0",
        "latents/token",
        "lower",
        "mean over tokens of the number of latents > 0",
        _OURS,
        "[0, d_sae]",
        Ratio(column("fired"), column("tokens")),
    ),
)

DENSITIES: tuple[Metric[Densities], ...] = (
    Metric(
        "l0_p05",
        "latents/token",
        "none",
        "5 % quantile over tokens of the number of latents > 0",
        _OURS,
        "[0, d_sae]",
        lambda fired, _: l0_quantile(fired.firing, 0.05),
    ),
    Metric(
        "l0_p50",
        "latents/token",
        "none",
        "median over tokens of the number of latents > 0",
        _OURS,
        "[0, d_sae]",
        lambda fired, _: l0_quantile(fired.firing, 0.5),
    ),
    Metric(
        "l0_p95",
        "latents/token",
        "lower",
        "95 % quantile over tokens of the number of latents > 0",
        _OURS,
        "[0, d_sae]",
        lambda fired, _: l0_quantile(fired.firing, 0.95),
    ),
    Metric(
        "l0_p99",
        "latents/token",
        "none",
        "99 % quantile over tokens of the number of latents > 0",
        _OURS,
        "[0, d_sae]",
        lambda fired, _: l0_quantile(fired.firing, 0.99),
    ),
    Metric(
        "dead_fraction",
        "1",
        "lower",
        "share of latents that fire on none of the evaluated tokens",
        _OURS,
        "[0, 1]",
        lambda fired, _: dead_fraction(fired.firing),
    ),
    Metric(
        "dense_fraction",
        "1",
        "lower",
        "share of latents with density > dense_above",
        _OURS,
        "[0, 1]",
        lambda fired, draw: dense_fraction(fired.firing, draw, dense_above=fired.dense_above),
    ),
)


def _over_predictions(numerator: Any, denominator: Any) -> Ratio:
    return Ratio(numerator, denominator, counted="predictions")


FIDELITY: tuple[Metric[pd.DataFrame], ...] = (
    Metric(
        "ce_clean_nats",
        "nats",
        "none",
        "Σ CE_clean / n",
        _OURS,
        "[0, ∞)",
        _over_predictions(column("ce_clean"), column("predictions")),
    ),
    Metric(
        "delta_ce_nats",
        "nats",
        "lower",
        "Σ (CE_sae − CE_clean) / n",
        _OURS,
        "(−∞, ∞)",
        _over_predictions(minus("ce_spliced", "ce_clean"), column("predictions")),
    ),
    Metric(
        "delta_ce_with_error_nats",
        "nats",
        "none",
        "Σ (CE_kept − CE_clean) / n, CE_kept with x̂ + (x − x̂) spliced in",
        _OURS,
        "(−∞, ∞)",
        _over_predictions(minus("ce_kept", "ce_clean"), column("predictions")),
    ),
    Metric(
        "ce_recovered_zero",
        "1",
        "higher",
        "Σ (CE_zero − CE_sae) / Σ (CE_zero − CE_clean)",
        "Bricken et al. 2023, Towards Monosemanticity",
        "(−∞, ∞)",
        _over_predictions(minus("ce_zero", "ce_spliced"), minus("ce_zero", "ce_clean")),
    ),
    Metric(
        "ce_recovered_mean",
        "1",
        "higher",
        "Σ (CE_mean − CE_sae) / Σ (CE_mean − CE_clean)",
        "Bricken et al. 2023, with mean-ablation",
        "(−∞, ∞)",
        _over_predictions(minus("ce_mean", "ce_spliced"), minus("ce_mean", "ce_clean")),
    ),
    Metric(
        "kl_nats",
        "nats",
        "lower",
        "Σ KL(p_clean ‖ p_sae) / n",
        _OURS,
        "[0, ∞)",
        _over_predictions(column("kl"), column("predictions")),
    ),
    Metric(
        "top1_agreement",
        "1",
        "higher",
        "share of the predictions whose most likely token is the same",
        _OURS,
        "[0, 1]",
        _over_predictions(column("agree"), column("predictions")),
    ),
)

BY_DOCUMENT = (*RECONSTRUCTION, *L0, *FIDELITY)
"""Measured on EvalDocumentTable alone: what two bundles are compared by, pair by pair."""

METRICS = registry((*BY_DOCUMENT, *DENSITIES, *QUALITY, *PROBES, *ABSORPTION))
