"""Batches as pairs of input and target: what makes an autoencoder or a transcoder of any variant.

# T token, D d_model of the input, E d_model of the target
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from saeops.errors import NonFinite
from saeops.training.normalise import Normalisation


@dataclass(frozen=True)
class Pair:
    """The same tokens at the input site and at the target site."""

    x_TD: Float[Tensor, "T D"]
    y_TE: Float[Tensor, "T E"]
    """The very tensor of the inputs where an autoencoder is trained."""
    origin: Callable[[int], str] | None = field(default=None, repr=False, compare=False)
    """Says where a row comes from, for messages."""

    @classmethod
    def same(cls, x_TD: Float[Tensor, "T D"], *, origin: Callable[[int], str] | None = None) -> Self:
        """An autoencoder's batch."""
        return cls(x_TD, x_TD, origin)

    @property
    def transcodes(self) -> bool:
        """Whether input and target are different."""
        return self.y_TE is not self.x_TD

    def mapped(self, x: Callable[[Tensor], Tensor], y: Callable[[Tensor], Tensor]) -> "Pair":
        """`x` of the inputs and `y` of the targets; of an autoencoder's one tensor, `x`."""
        x_TD = x(self.x_TD)
        return Pair(x_TD, y(self.y_TE) if self.transcodes else x_TD, self.origin)

    def to(self, device: torch.device) -> "Pair":
        """The same on another device; from pinned memory, without waiting."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return self.mapped(moved, moved)

    def pinned(self) -> "Pair":
        """The same in pinned memory."""
        return self.mapped(Tensor.pin_memory, Tensor.pin_memory)

    def check_finite(self, where: str) -> None:
        """Refuse NaN and infinity.

        Raises:
            NonFinite: names `where`, and the first bad row's origin.
        """
        # A sum shows NaN and infinity at a fraction of the cost of looking at each value.
        if bool((self.x_TD.sum() + self.y_TE.sum()).isfinite()):
            return
        bad_T = ~(self.x_TD.isfinite().all(1) & self.y_TE.isfinite().all(1))
        if bool(bad_T.any()):
            row = int(bad_T.nonzero()[0])
            origin = f" ({self.origin(row)})" if self.origin else ""
            raise NonFinite(
                f"the activations {where} hold NaN or infinity{origin}",
                hint="remove the activation set and run `saeops harvest` again",
            )

    def __len__(self) -> int:
        return len(self.x_TD)


@dataclass(frozen=True)
class PairNormalisation:
    """Both sides' normalisation; one and the same where an autoencoder is trained."""

    input: Normalisation
    target: Normalisation

    @classmethod
    def estimate(cls, sample: Pair) -> Self:
        """From a sample of raw activations.

        Raises:
            NonFinite: the sample holds NaN or infinity, or does not vary at all.
        """
        one = Normalisation.estimate(sample.x_TD)
        return cls(one, Normalisation.estimate(sample.y_TE) if sample.transcodes else one)

    @property
    def transcodes(self) -> bool:
        """Whether input and target are different."""
        return self.target is not self.input

    def apply(self, raw: Pair) -> Pair:
        """Both sides with mean 0 and E‖·‖² = width, fp32."""
        return raw.mapped(self.input.apply, self.target.apply)

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        one = self.input.to(device)
        return type(self)(one, self.target.to(device) if self.transcodes else one)
