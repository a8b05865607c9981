"""What the training loop asks of every variant.

A variant maps inputs x to targets y: an autoencoder's y is x, a transcoder's is
read at another site. Both come normalised: mean 0, E‖x‖² = d_model.

# T token, D d_model (E of the target), F latent
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
    """mean((y − ŷ)²) over tokens and dimensions."""
    aux: Float[Tensor, ""]
    """The variant's own term, before its coefficient: AuxK's error, the L1 penalty; 0 where it rests."""
    l0: Float[Tensor, ""]
    """Mean latents that fire on a token."""
    fired: Bool[Tensor, " F"]
    """Latents that fired on any token of the batch."""
    encoder_recall: float = 1.0
    """Share of the exact top k that the encoder finds; 1 where it is exact."""
    notice: str | None = None
    """What a person should be told, once."""


@dataclass(frozen=True)
class Weights:
    """A variant's weights as trained: normalised activations in and out, any decoder norm.

    f = act(x W_encᵀ + b_enc), ŷ = f W_dec + b_dec.
    """

    W_enc_FD: Float[Tensor, "F D"]
    b_enc: Float[Tensor, " F"]
    W_dec_FE: Float[Tensor, "F E"]
    b_dec: Float[Tensor, " E"]
    threshold: Float[Tensor, " F"] | None = None


class TrainableSae(nn.Module, ABC):
    """The weights every variant has, in fp32: f = act(x W_encᵀ + b_enc), ŷ = f W_dec + b_dec.

    Both matrices hold one latent a row, so that a latent's weights and
    gradients are contiguous. Decoder rows start as random directions of length
    `decoder_norm`, encoder rows as the same vectors (arXiv 2406.04093, A.1); a
    transcoder's encoder rows, which live in another space, as random ones.
    b_dec is not taken off the input, so that a transcoder is trained by the same
    lines; what is taken off is `centre`, a parameter of its own that starts at
    the inputs' mean, 0 (docs/decisions/learned-centre.md).
    """

    unit_rows: bool
    """Whether decoder rows are held at unit norm."""

    def __init__(self, shape: "Shape", *, decoder_norm: float, generator: torch.Generator) -> None:
        super().__init__()
        rows_FE = random_rows(shape.d_sae, shape.d_out, generator)
        rows_FD = random_rows(shape.d_sae, shape.d_in, generator) if shape.transcodes else rows_FE
        self.W_enc_FD = nn.Parameter(rows_FD * decoder_norm)
        self.b_enc = nn.Parameter(torch.zeros(shape.d_sae))
        self.W_dec_FE = nn.Parameter(rows_FE * decoder_norm)
        self.b_dec = nn.Parameter(torch.zeros(shape.d_out))
        self.centre = nn.Parameter(torch.zeros(shape.d_in))

    @abstractmethod
    def outcome(
        self, x_TD: Float[Tensor, "T D"], y_TE: Float[Tensor, "T E"], *, dead: Bool[Tensor, " F"], progress: float
    ) -> Outcome:
        """Forward pass and loss.

        Args:
            x_TD: inputs with the centre taken off; gradients do not reach them.
            y_TE: what is to be reconstructed; x itself in an autoencoder.
            dead: latents that have not fired for long.
            progress: share of training that is done, from 0 to 1.
        """

    def start(self, x_TD: Float[Tensor, "T D"]) -> None:
        """Set what depends on the data, from a normalised sample of it, before the first step."""

    @torch.no_grad()
    def take(self, weights: "Weights") -> None:
        """Start from the weights of an earlier run of the same variant, in place of `start`.

        They read inputs with nothing taken off, so the centre starts at 0 as in a fresh run.
        """
        self.W_enc_FD.copy_(weights.W_enc_FD)
        self.b_enc.copy_(weights.b_enc)
        self.W_dec_FE.copy_(weights.W_dec_FE)
        self.b_dec.copy_(weights.b_dec)

    def differentiated(self) -> list[Tensor]:
        """What an outcome is differentiated in: every parameter but the centre, which follows from them."""
        return [parameter for name, parameter in self.named_parameters() if name != "centre"]

    @torch.no_grad()
    def learn_centre(self) -> None:
        """Give the centre its gradient, after the backward pass of an outcome.

        Every x·w holds −centre·w, so it is −Σ ∂loss/∂(x·w) · w, summed over tokens and latents.
        """
        self.centre.grad = -(self.product_gradient() @ self.W_enc_FD)

    def product_gradient(self) -> Float[Tensor, " F"]:
        """Σ over tokens of ∂loss/∂(x·w): the bias's gradient, where each x·w has its bias added once."""
        assert self.b_enc.grad is not None
        return self.b_enc.grad

    def weights(self) -> Weights:
        """The weights now, detached, for inputs with the centre taken off; the threshold where there is one."""
        parameters = (self.W_enc_FD, self.b_enc, self.W_dec_FE, self.b_dec)
        return Weights(*(p.detach() for p in parameters))


@dataclass(frozen=True)
class Shape:
    """The widths of an SAE."""

    d_in: int
    d_sae: int
    d_out: int
    transcodes: bool = False
    """Whether the target is read at another site than the input."""


def random_rows(rows: int, width: int, generator: torch.Generator) -> Float[Tensor, "rows width"]:
    """Directions drawn evenly from the sphere."""
    return nn.functional.normalize(torch.randn(rows, width, generator=generator), dim=1)
