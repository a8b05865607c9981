"""How two dictionaries are matched, and which labels that carries over."""

from pydantic import Field, model_validator

from saeops.config import Frozen


class CarryConfig(Frozen):
    """Which labels move to the matched latent."""

    least_confidence: float = Field(default=0.3, ge=0, le=1)
    """Carried confidence below which a label is dropped, and queued for review."""
    most_loss: float = Field(default=0.3, ge=0, le=1)
    """Largest fall from the confidence it had; beyond it the label is dropped, and queued."""


class MatchConfig(Frozen):
    """Matching, what its scores mean, and kinds of latents."""

    tokens: int = Field(default=20_000, ge=0)
    """Held-out tokens on which activations are correlated; 0: decoder directions alone."""
    activation_weight: float = Field(default=0.5, ge=0, le=1)
    """Share of the activations' correlation in a score; the rest is the decoder's cosine."""
    least_score: float = Field(default=0.1, ge=-1, le=1)
    """Pairs at or below this score are no pairs."""
    candidates: int = Field(default=16, ge=1)
    """Best partners of a latent that are held to begin with; more are added until the assignment is exact."""
    matched: float = Field(default=0.7, ge=-1, le=1)
    """Least score of a matched pair (0.7: Paulo & Belrose 2025, arXiv 2501.16615)."""
    beyond_null: float = Field(default=0.99, gt=0, lt=1)
    """Share of the permuted null's best scores that a match, or a part, must exceed."""
    null_latents: int = Field(default=1000, ge=8)
    """Latents, drawn at random, whose best scores beside a permuted dictionary are the null."""
    part: float = Field(default=0.4, ge=-1, le=1)
    """Least score of a part with the latent that was split, or that it was merged into."""
    whole: float = Field(default=0.7, ge=0, le=1)
    """Least share of a direction's square that its parts make up together."""
    gain: float = Field(default=0.1, ge=0, le=1)
    """Least share of it that the parts add to the best of them alone."""
    carry: CarryConfig = CarryConfig()
    """Label carry-over."""

    @model_validator(mode="after")
    def _matches_are_pairs(self) -> "MatchConfig":
        for name in ("matched", "part"):
            if getattr(self, name) < self.least_score:
                raise ValueError(f"{name} {getattr(self, name)} must be ≥ least_score {self.least_score}")
        return self
