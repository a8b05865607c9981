"""What ReLU-L1 and Gated share: an L1 penalty that warms up; dense while many latents fire, sparse after.

# T token, D d_model (E of the target), F latent
"""

from abc import abstractmethod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saeops.sae.dense import Part, few_fire, in_chunks
from saeops.sae.trainable import Outcome, Shape, TrainableSae
from saeops.sae.variants import Gated, ReluL1


class L1Sae(TrainableSae):
    """Every latent with a positive pre-activation is computed; the loss is a sum over tokens, over D."""

    def __init__(
        self, variant: ReluL1 | Gated, shape: Shape, *, decoder_norm: float, generator: torch.Generator
    ) -> None:
        super().__init__(shape, decoder_norm=decoder_norm, generator=generator)
        self.variant = variant

    def outcome(
        self,
        x_TD: Float[Tensor, "T D"],
        y_TE: Float[Tensor, "T E"],
        *,
        dead: Bool[Tensor, " F"],  # noqa: ARG002
        progress: float,
    ) -> Outcome:
        coefficient = warmed_up(self.variant.l1_coefficient, self.variant.l1_warmup_fraction, progress)
        if few_fire(x_TD, self.W_enc_FD, self.b_enc, 0.0):
            part = self._sparse(x_TD, y_TE, coefficient)
        else:
            part = in_chunks(
                lambda x, y: self._dense(x, y, coefficient),
                x_TD,
                y_TE,
                parameters=self.differentiated(),
                n_latents=len(self.b_enc),
            )
        figures, size = part.figures, y_TE.numel()
        return Outcome(
            part.loss / size,
            figures["squared_error"] / size,
            figures["penalty"] / size,
            figures["fires_F"].sum() / len(x_TD),
            figures["fires_F"] > 0,
        )

    @abstractmethod
    def _dense(self, x_TD: Float[Tensor, "T D"], y_TE: Float[Tensor, "T E"], coefficient: float) -> Part:
        """The loss of some tokens, over all latents."""

    @abstractmethod
    def _sparse(self, x_TD: Float[Tensor, "T D"], y_TE: Float[Tensor, "T E"], coefficient: float) -> Part:
        """The same over the entries that fire."""


def penalised(
    squared_error: Float[Tensor, ""],
    penalty: Float[Tensor, ""],
    coefficient: float,
    fires_F: Int[Tensor, " F"],
) -> Part:
    """The squared error and its penalty, with the figures that `L1Sae.outcome` reads."""
    figures = {"squared_error": squared_error.detach(), "penalty": penalty.detach(), "fires_F": fires_F}
    return Part(squared_error + coefficient * penalty, figures)


def warmed_up(coefficient: float, fraction: float, progress: float) -> float:
    """The coefficient as it grows from 0 over the first share of training."""
    return coefficient * (min(1.0, progress / fraction) if fraction else 1.0)
