"""The figures that diagnostics report: one declaration each. docs/metrics.md says more on every one."""

from saeops.metrics import Metric, registry

_OURS = "saeops"
_GAO = "openai/sparse_autoencoder, loss.py; here a ratio of sums"

RECONSTRUCTION = (
    Metric(
        "explained_variance",
        "1",
        "higher",
        "1 − Σ‖x − x̂‖² / Σ‖x − μ‖², μ the mean of the evaluated tokens",
        _OURS,
    ),
    Metric("mse", "activation²", "lower", "Σ‖x − x̂‖² / (T·D)", _OURS),
    Metric("normalised_mse", "1", "lower", "Σ‖x − x̂‖² / Σ‖x‖²", _GAO),
    Metric("cosine", "1", "higher", "mean over tokens of x·x̂ / (‖x‖·‖x̂‖)", _OURS),
    Metric(
        "pca_explained_variance",
        "1",
        "none",
        "explained_variance of PCA of rank round(l0), fitted on train documents",
        _OURS,
    ),
)

SPARSITY = (
    Metric("l0", "latents/token", "lower", "mean over tokens of the number of latents > 0", _OURS),
    Metric("l0_p05", "latents/token", "none", "5 % quantile over tokens of the number of latents > 0", _OURS),
    Metric("l0_p50", "latents/token", "none", "median over tokens of the number of latents > 0", _OURS),
    Metric("l0_p95", "latents/token", "lower", "95 % quantile over tokens of the number of latents > 0", _OURS),
    Metric("dead_fraction", "1", "lower", "share of latents that fire on none of the evaluated tokens", _OURS),
    Metric("dense_fraction", "1", "lower", "share of latents with density > dense_above", _OURS),
)

FIDELITY = (
    Metric("ce_clean_nats", "nats", "none", "Σ CE_clean / n", _OURS),
    Metric("delta_ce_nats", "nats", "lower", "Σ (CE_sae − CE_clean) / n", _OURS),
    Metric(
        "ce_recovered_zero",
        "1",
        "higher",
        "Σ (CE_zero − CE_sae) / Σ (CE_zero − CE_clean)",
        "Bricken et al. 2023, Towards Monosemanticity",
    ),
    Metric(
        "ce_recovered_mean",
        "1",
        "higher",
        "Σ (CE_mean − CE_sae) / Σ (CE_mean − CE_clean)",
        "Bricken et al. 2023, with mean-ablation",
    ),
    Metric("kl_nats", "nats", "lower", "Σ KL(p_clean ‖ p_sae) / n", _OURS),
)

METRICS = registry((*RECONSTRUCTION, *SPARSITY, *FIDELITY))
