"""The figures that the bench reports: one declaration each. docs/metrics.md says more on every one."""

from saeops.metrics import Metric, registry

_OURS = "saeops"
_SCALING = "Templeton et al. 2024, Scaling Monosemanticity (clamping); controls by saeops"

STEERING = (
    Metric(
        "steering_effect_nats",
        "nats",
        "higher",
        "mean over latents and prompts of the change in mean log-prob of the latent's own tokens, steered at the"
        " reference strength",
        _SCALING,
    ),
    Metric(
        "steering_vs_random_nats",
        "nats",
        "higher",
        "steering_effect_nats − the same tokens' change under equal-norm random directions",
        _OURS,
    ),
    Metric(
        "steering_vs_random_own_nats",
        "nats",
        "higher",
        "steering_effect_nats − the change of each random direction's own raised tokens under that direction",
        _OURS,
    ),
    Metric(
        "steering_beats_random",
        "1",
        "higher",
        "share of tested latents whose difference to random directions, on the same tokens, has a lower bound > 0",
        _OURS,
    ),
    Metric(
        "steering_beats_random_own",
        "1",
        "higher",
        "share of tested latents whose difference to random directions, each on its own tokens, has a lower"
        " bound > 0",
        _OURS,
    ),
    Metric(
        "dose_response_rho",
        "1",
        "higher",
        "mean over latents of Spearman's ρ between strength (0 included) and steering effect",
        _OURS,
    ),
)

ABLATION = (
    Metric(
        "ablation_effect_nats",
        "nats",
        "lower",
        "mean over latents and their strongest contexts of the change in mean log-prob of the latent's own tokens"
        " when it is ablated",
        _OURS,
    ),
    Metric(
        "ablation_vs_random_nats",
        "nats",
        "lower",
        "ablation_effect_nats − the change when as much is taken away along random directions",
        _OURS,
    ),
)

COST = (
    Metric(
        "off_target_kl_nats",
        "nats",
        "lower",
        "mean over latents and neutral documents of KL(clean ‖ steered at the reference strength) per token",
        _OURS,
    ),
    Metric(
        "off_target_kl_random_nats", "nats", "none", "off_target_kl_nats of equal-norm random directions", _OURS
    ),
    Metric(
        "off_target_kl_vs_random_nats", "nats", "lower", "off_target_kl_nats − off_target_kl_random_nats", _OURS
    ),
    Metric(
        "ablation_off_target_kl_nats",
        "nats",
        "lower",
        "mean over latents and neutral documents of KL(clean ‖ ablated) per token",
        _OURS,
    ),
)

SPECIFICITY = (
    Metric(
        "panel_specificity_nats",
        "nats",
        "higher",
        "mean over latents and prompts of mean|Δ log-prob| of what should move − of what should not, at the"
        " reference strength",
        _OURS,
    ),
    Metric(
        "panel_specificity_vs_random_nats",
        "nats",
        "higher",
        "panel_specificity_nats − the same under equal-norm random directions",
        _OURS,
    ),
)

METRICS = registry((*STEERING, *ABLATION, *COST, *SPECIFICITY))
