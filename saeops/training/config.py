"""What every variant's training has in common."""

from typing import Any, Literal

from pydantic import Field

from saeops.config import Frozen
from saeops.refs import Site


class TrainingConfig(Frozen):
    """The training loop's choices."""

    site: Site = "blocks.10.resid_post"
    """The harvested site to train on."""
    target_site: Site | None = None
    """The harvested site to reconstruct, one that comes after `site`: a transcoder; null: an autoencoder."""
    expansion_factor: float = Field(default=8, gt=0)
    """d_sae = expansion_factor × d_model."""
    tokens: int = Field(default=1_500_000, ge=1)
    """Tokens to train on; more than were harvested means several epochs."""
    batch_size: int = Field(default=1024, ge=1)
    """Tokens a step."""
    lr: float = Field(default=2e-3, gt=0)
    """Peak learning rate of Adam: high, because short runs have few steps; 5e-4 for 10⁸ tokens and more."""
    warmup_fraction: float = Field(default=0.05, ge=0, lt=1)
    """Share of steps over which the learning rate rises."""
    decay_fraction: float = Field(default=0.2, ge=0, le=1)
    """Share of steps at the end over which it falls to 0."""
    gradient_clip: float = Field(default=1.0, gt=0)
    """Largest gradient norm."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the encoder's and other dense products; weights, moments, thresholds and losses are always float32."""
    start_from: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Digest of the bundle whose SAE is trained on; a fresh start is trained beside it and the better one kept.
    null: a fresh start alone."""
    buffer_tokens: int = Field(default=131_072, ge=1)
    """Tokens held in memory for shuffling."""
    dead_after_tokens: int = Field(default=200_000, ge=1)
    """A latent silent for this many tokens is dead."""
    checkpoint_every_steps: int = Field(default=200, ge=1)
    """Steps between checkpoints."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Newest checkpoints kept."""
    log_every_steps: int = Field(default=20, ge=1)
    """Steps between logged metrics."""
    sweep: tuple[dict[str, Any], ...] = ()
    """For `saeops sweep`: choices of this section (and seed) by member, each laid over the others here."""
