"""An encoder whose weights stay as they are: what makes its product fast is prepared once.

# T token, D d_model, F latent
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from saeops.sae.codes import Codes
from saeops.sae.native.library import Library, Rounded
from saeops.sae.search import rounded_for_all, worth_it
from saeops.sae.select import encode_above, encode_topk, kernels_for


@dataclass(frozen=True)
class Encoder:
    """x W + b, and the latents of it that fire."""

    W_DF: Float[Tensor, "D F"]
    b: Float[Tensor, " F"]

    @torch.no_grad()
    def topk(self, x_TD: Float[Tensor, "T D"], k: int) -> Codes:
        """The positive ones among the k largest of each token."""
        native = kernels_for(x_TD, self.b)
        searched = native is not None and worth_it(native, n_latents=len(self.b), k=k)
        picked = encode_topk(x_TD, self._rows(native), self.b, k, rounded=self._rounded if searched else None)
        return Codes.from_pairs(picked.value, picked.latent.long(), n_latents=len(self.b))

    @torch.no_grad()
    def above(self, x_TD: Float[Tensor, "T D"], threshold: Float[Tensor, " F"] | None) -> Codes:
        """The positive ones above their latent's threshold."""
        floor = 0.0 if threshold is None else threshold.clamp(min=0)
        found = encode_above(x_TD, self._rows(kernels_for(x_TD, self.b)), self.b, floor)
        return Codes(found.pattern.offsets.long(), found.pattern.latent.long(), found.pre, len(self.b))

    def _rows(self, native: Library | None) -> Float[Tensor, "F D"]:
        # Only the compiled kernels need a latent's weights side by side.
        return self.W_DF.t() if native is None else self._contiguous_FD

    @cached_property
    def _contiguous_FD(self) -> Float[Tensor, "F D"]:
        return self.W_DF.t().contiguous()

    @cached_property
    def _rounded(self) -> Rounded:
        native = kernels_for(self.b)
        assert native is not None
        return rounded_for_all(native, self._contiguous_FD)
