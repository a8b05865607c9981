"""The one token policy: which positions count, everywhere in saeops.

It is applied as a mask after the forward pass. Deleting tokens before it
would only move the attention sink to another token.
"""

from pydantic import Field

from saeops.config import Frozen


class TokenPolicy(Frozen):
    """Which token positions are harvested, trained on, scored and spliced."""

    prepend_bos: bool = True
    """Put the beginning-of-sequence token before each window, as the model was trained."""
    skip_positions: int = Field(default=1, ge=0)
    """Positions at the start of each window to leave out, the prepended token included (attention sinks)."""
    mask_special: bool = True
    """Leave out the tokenizer's special tokens."""
    max_norm_ratio: float | None = Field(default=10.0, gt=1)
    """Leave out tokens whose activation norm exceeds this multiple of the median; null keeps all."""
