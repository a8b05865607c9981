"""What is measured on held-out documents and how finely, and which controls stand beside it."""

from pydantic import Field

from saeops.config import Frozen


class DiagnoseConfig(Frozen):
    """Diagnostics and the catalog."""

    fidelity_documents: int = Field(default=48, ge=1)
    """Eval documents on which the model runs with the reconstruction spliced in."""
    resamples: int = Field(default=1000, ge=100)
    """Bootstrap resamples an interval."""
    ablated_latents: int = Field(default=12, ge=0)
    """Living latents, drawn at random, whose effect on the logits is measured by ablating them."""
    top_contexts: int = Field(default=10, ge=1)
    """Strongest contexts kept a latent."""
    quantiles: int = Field(default=5, ge=1)
    """Activation quantiles sampled a latent."""
    contexts_per_quantile: int = Field(default=4, ge=1)
    """Contexts sampled a quantile."""
    context_tokens: int = Field(default=16, ge=2)
    """Tokens shown on each side of the one that fires."""
    logit_tokens: int = Field(default=8, ge=1)
    """Tokens listed whose logits a latent raises most, and as many it lowers most."""
    dense_above: float = Field(default=0.1, gt=0, lt=1)
    """A latent firing on a larger share of tokens is dense."""


class ControlsConfig(Frozen):
    """SAEs to compare the dictionary with."""

    random_model_tokens: int = Field(default=80_000, ge=0)
    """Tokens harvested from a copy of the model with random weights, half of them to train on; 0: no copy."""
    seeds: int = Field(default=1, ge=0)
    """SAEs trained on the same activations from other seeds; 0: none."""
    train_tokens: int | None = Field(default=500_000, ge=1)
    """Tokens that a control SAE trains on, at most train.tokens; null: train.tokens."""
