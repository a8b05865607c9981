"""Dead latents, counted in tokens: a run with larger batches must not call latents dead later.

# F latent
"""

from dataclasses import dataclass

from jaxtyping import Bool, Int
from torch import Tensor


@dataclass
class SilentTokens:
    """How many tokens each latent has been silent for."""

    count: Int[Tensor, " F"]

    def see(self, fired: Bool[Tensor, " F"], *, tokens: int) -> None:
        """One batch of `tokens` went by, in which these latents fired."""
        self.count += tokens
        self.count[fired] = 0

    def dead(self, *, after_tokens: int) -> Bool[Tensor, " F"]:
        """Latents silent for at least that many tokens."""
        return self.count >= after_tokens
