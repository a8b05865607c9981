"""Who must look at what before a dictionary is promoted."""

from pydantic import Field

from saeops.config import Frozen


class ReviewConfig(Frozen):
    """The review queue."""

    by_priority: int = Field(default=20, ge=0)
    """Labels queued by impact and uncertainty."""
    at_random: int = Field(default=10, ge=0)
    """Labels queued at random from the rest, so that the tail is seen too."""
    by_dropped: int = Field(default=10, ge=0)
    """Labels queued because the one that an older dictionary had for the latent was dropped."""
