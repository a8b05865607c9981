"""How much an audit looks at, and from when on what it finds counts as drift."""

from pydantic import Field, model_validator

from saeops.config import Frozen


class LatentPolicy(Frozen):
    """When a latent is kept, weakened, changed or lost."""

    min_firings: int = Field(default=20, ge=2)
    """A latent with fewer firings on the old model is too few to tell."""
    min_documents: int = Field(default=8, ge=2)
    """The same of documents in which it fires."""
    same_correlation: float = Field(default=0.5, gt=0, lt=1)
    """A latent whose activations on the same tokens correlate less than this means something else: changed."""
    weakened_below: float = Field(default=0.7, gt=0, lt=1)
    """A latent whose activation over all tokens falls below this share of what it was is weakened."""
    lost_below: float = Field(default=0.1, gt=0, lt=1)
    """A weakened latent below this share is lost."""
    grown_above: float = Field(default=2.0, gt=1)
    """A latent whose activation over all tokens grows beyond this multiple is changed."""
    false_alarms: float = Field(default=0.05, gt=0, lt=0.5)
    """How often at most an audit may call any kept latent weakened, changed or lost, over all its latents."""

    @model_validator(mode="after")
    def _lost_is_weaker_than_weakened(self) -> "LatentPolicy":
        if self.lost_below >= self.weakened_below:
            raise ValueError(f"lost_below {self.lost_below} must be < weakened_below {self.weakened_below}")
        return self


class Limit(Frozen):
    """From where on a dictionary's figure is a warning, and from where on it is drift; bounds are judged."""

    warn: float = Field(ge=0)
    """Beyond this, a warning."""
    drift: float = Field(ge=0)
    """Beyond this, drift."""

    @model_validator(mode="after")
    def _warns_first(self) -> "Limit":
        if self.warn > self.drift:
            raise ValueError(f"warn {self.warn} must be ≤ drift {self.drift}")
        return self


class AuditConfig(Frozen):
    """A drift audit: one dictionary on two models."""

    documents: int = Field(default=160, ge=16)
    """Held-out documents read through both models; fewer where the corpus holds fewer."""
    windows: int = Field(default=2, ge=1)
    """Windows read of each document, from its beginning."""
    fidelity_documents: int = Field(default=16, ge=8)
    """Of those, how many the models run on with the reconstruction spliced in, one window each."""
    null_documents: int = Field(default=32, ge=8)
    """Of those, how many the random-init model reads."""
    top_contexts: int = Field(default=10, ge=1)
    """Strongest windows of a latent that are compared."""
    effect_latents: int = Field(default=2, ge=0)
    """Latents of the bundle's bench whose effects are measured again on both models; 0: none."""
    effect_documents: int = Field(default=4, ge=1)
    """Neutral documents on which their side effects are measured."""
    llm_labels: int = Field(default=0, ge=0)
    """Labels that an LLM wrote and judges again on both models; rules are always judged."""
    resamples: int = Field(default=1000, ge=100)
    """Bootstrap resamples an interval."""
    latents: LatentPolicy = LatentPolicy()
    """Verdicts on latents."""
    gone: Limit = Limit(warn=0.02, drift=0.2)
    """Share of the latents with enough firings that are weakened, changed or lost."""
    explained_variance_drop: Limit = Limit(warn=0.02, drift=0.1)
    """Explained variance that the dictionary loses on the new model."""
    delta_ce_rise_nats: Limit = Limit(warn=0.05, drift=0.25)
    """By how much more the new model loses when it runs on the reconstruction."""
    l0_change: Limit = Limit(warn=0.25, drift=1.0)
    """Change of L0, up or down, as a share of what it was."""
    fresh_start_gone: float = Field(default=0.5, ge=0, le=1)
    """From this share of latents gone on, a retrain starts afresh and not from the champion."""
