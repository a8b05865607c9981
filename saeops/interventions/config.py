"""What the intervention bench does to the model."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from saeops.config import Frozen


def _positive_and_distinct(strengths: tuple[float, ...]) -> tuple[float, ...]:
    if any(s <= 0 for s in strengths) or len(set(strengths)) != len(strengths):
        raise ValueError("strengths must be positive and distinct")
    return tuple(sorted(strengths))


class BenchConfig(Frozen):
    """The intervention bench."""

    panel: Path = Path("saeops/interventions/panel.yaml")
    """The committed panel: prompts, what should move, what should not."""
    latents: int = Field(default=8, ge=1)
    """Latents tested: half the best labelled, half drawn at random."""
    strengths: Annotated[tuple[float, ...], AfterValidator(_positive_and_distinct)] = Field(
        default=(1.0, 2.0, 4.0), min_length=1
    )
    """Steering strengths, in units of the latent's own maximum activation."""
    random_directions: int = Field(default=3, ge=1)
    """Equal-norm random directions each effect is compared with."""
    target_tokens: int = Field(default=8, ge=1)
    """A latent's own tokens: those whose logits its direction raises most."""
    firing_contexts: int = Field(default=8, ge=1)
    """The latent's strongest contexts, on which it is ablated."""
    neutral_documents: int = Field(default=8, ge=1)
    """Panel-split documents on which off-target KL is measured."""
    neutral_tokens: int = Field(default=32, ge=2)
    """Tokens read of each neutral document."""
    resamples: int = Field(default=1000, ge=100)
    """Bootstrap resamples an interval."""

    @property
    def reference_strength(self) -> float:
        """The middle strength, at which the headline figures are taken."""
        return self.strengths[len(self.strengths) // 2]
