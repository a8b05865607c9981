"""What the intervention bench does to the model."""

from pathlib import Path

from pydantic import Field

from saeops.config import Frozen


class BenchConfig(Frozen):
    """The intervention bench."""

    panel: Path = Path("saeops/interventions/panel.yaml")
    """The committed panel: prompts, what should move, what should not."""
    latents: int = Field(default=8, ge=1)
    """Latents tested: half the best labelled, half drawn at random."""
    strengths: tuple[float, ...] = (1.0, 2.0, 4.0)
    """Steering strengths, in units of the latent's own maximum activation."""
    random_directions: int = Field(default=3, ge=1)
    """Equal-norm random directions each effect is compared with."""
    neutral_documents: int = Field(default=8, ge=1)
    """Panel-split documents on which off-target KL is measured."""
    resamples: int = Field(default=1000, ge=100)
    """Bootstrap resamples an interval."""
