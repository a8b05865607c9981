"""What the training loop asks of every variant.

# T token, D d_model, F latent
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Outcome:
    """One forward pass of training."""

    loss: Float[Tensor, ""]
    """What is differentiated."""
    mse: Float[Tensor, ""]
    """mean((x − x̂)²) over tokens and dimensions."""
    aux: Float[Tensor, ""]
    """The variant's own term, before its coefficient: AuxK's error, the L1 penalty; 0 where it rests."""
    l0: Float[Tensor, ""]
    """Mean latents that fire on a token."""
    fired: Bool[Tensor, " F"]
    """Latents that fired on any token of the batch."""


@dataclass(frozen=True)
class Weights:
    """A variant's weights as trained: normalised activations in, any decoder norm."""

    W_enc_FD: Float[Tensor, "F D"]
    b_enc: Float[Tensor, " F"]
    W_dec_FD: Float[Tensor, "F D"]
    b_dec: Float[Tensor, " D"]
    threshold: Float[Tensor, " F"] | None = None


class TrainableSae(nn.Module, ABC):
    """The weights every variant has, in fp32: f = act((x − b_dec) W_encᵀ + b_enc), x̂ = f W_dec + b_dec.

    Both matrices hold one latent a row, so that a latent's weights and
    gradients are contiguous. Decoder rows start as random directions of length
    `decoder_norm`, encoder rows as the same vectors (arXiv 2406.04093, A.1).
    b_dec starts at 0: the loop feeds activations whose mean is 0, and the mean
    is the best constant under squared error.
    """

    def __init__(self, d_model: int, d_sae: int, *, decoder_norm: float, generator: torch.Generator) -> None:
        super().__init__()
        directions = nn.functional.normalize(torch.randn(d_sae, d_model, generator=generator), dim=1)
        self.W_enc_FD = nn.Parameter(directions * decoder_norm)
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.W_dec_FD = nn.Parameter(directions * decoder_norm)
        self.b_dec = nn.Parameter(torch.zeros(d_model))

    @abstractmethod
    def outcome(self, x_TD: Float[Tensor, "T D"], *, dead: Bool[Tensor, " F"], progress: float) -> Outcome:
        """Forward pass and loss.

        Args:
            dead: latents that have not fired for long.
            progress: share of training that is done, from 0 to 1.
        """

    def before_step(self) -> None:
        """Mend the gradients before they are clipped and applied."""

    def after_step(self) -> None:
        """Mend the weights after they have moved."""

    def weights(self) -> Weights:
        """The weights now, detached."""
        parameters = (self.W_enc_FD, self.b_enc, self.W_dec_FD, self.b_dec)
        return Weights(*(p.detach() for p in parameters))
