"""Weights as another library computes with them, and the canonical SAE that does exactly the same.

# D d_model, F latent
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saeops.activations.policy import TokenPolicy
from saeops.errors import ForeignFormat
from saeops.sae.canonical import UNIT_TOLERANCE, Sae, SaeMeta
from saeops.sae.formats.reading import Faults

ROUNDING = 1e-6
"""Rows this close to unit norm are left as they are, so that what was canonical comes back bit for bit."""


@dataclass(frozen=True)
class ForeignWeights:
    """f = act((s·x − b_dec) W_enc + b_enc), x̂ = (f W_dec + b_dec) / s, in fp32."""

    W_enc: Float[Tensor, "D F"]
    b_enc: Float[Tensor, " F"]
    W_dec: Float[Tensor, "F D"]
    """Rows of any length."""
    b_dec: Float[Tensor, " D"]
    threshold: Float[Tensor, " F"] | None = None
    """A latent at or below it does not fire."""
    k: int | None = None
    """The k largest pre-activations of a token fire, if positive."""
    apply_b_dec_to_input: bool = True
    """False: s·x goes into the encoder without b_dec taken off."""
    selects_by_length: bool = False
    """The k largest are those of pre · ‖decoder row‖."""
    input_scale: float = 1.0
    """s."""


@dataclass(frozen=True)
class Imported:
    """A foreign SAE as read, with what its files say of where it belongs."""

    weights: ForeignWeights
    architecture: str
    """In the library's own word."""
    hook: str = ""
    """The place in the model, in the library's own word; empty where the files do not tell."""
    site: str | None = None
    """The same place as saeops calls it; None where it has no name for it."""
    transcoder: bool = False
    """It gives back activations of another place than it reads."""
    target_site: str | None = None
    """That other place as saeops calls it."""
    model: str = ""
    """The language model's name; empty where the files do not tell."""
    prepend_bos: bool | None = None
    notes: tuple[str, ...] = ()
    """What whoever imports it should know."""

    def canonical(
        self,
        *,
        format: str,
        site: str,
        target_site: str | None = None,
        model: dict[str, Any] | None = None,
        policy: TokenPolicy | None = None,
        norm_limit: float | None = None,
        target_norm_limit: float | None = None,
    ) -> Sae:
        """The canonical SAE with the same latents and the same reconstruction.

        Args:
            format: the library it comes from.
            site: where in the model it reads.
            target_site, model, policy, norm_limit, target_norm_limit: as in `SaeMeta`.

        Raises:
            ForeignFormat: decoder rows of different lengths that a top-k by pre-activation does not see.
        """
        D, F = self.weights.W_enc.shape
        meta = SaeMeta(
            variant=f"{format}:{self.architecture}",
            site=site,
            target_site=target_site,
            d_model=D,
            d_sae=F,
            k=self.weights.k,
            apply_b_dec_to_input=self.weights.apply_b_dec_to_input,
            model=model or {},
            policy=policy or TokenPolicy(),
            norm_limit=norm_limit,
            target_norm_limit=target_norm_limit,
        )
        return Sae.of(fold(self.weights), meta)


@torch.no_grad()
def fold(weights: ForeignWeights) -> dict[str, Tensor]:
    """Canonical tensors by name.

    A decoder row of length n gives it to its latent: encoder, bias and threshold grow by n. The input's
    scale s goes into the encoder and out of the decoder, whose rows are then n / s long; the bias of the
    encoder and thresholds do not see it.

    Raises:
        ForeignFormat: see `Imported.canonical`.
    """
    scale = weights.input_scale
    length = torch.linalg.vector_norm(weights.W_dec, dim=1, dtype=torch.float64) / scale
    gain = _one_length(length) if weights.k is not None and not weights.selects_by_length else length
    gain = torch.where((gain - 1).abs() <= ROUNDING, 1.0, gain)
    # Lengths are taken in double; the matrices, which may be large, stay in single.
    row, column = (gain * scale).clamp(min=1e-30).float()[:, None], (gain * scale).float()
    # A row of length 0 adds nothing whenever it fires; any direction with an encoder of 0 does the same.
    basis = torch.eye(1, weights.W_dec.shape[1])
    W_dec = torch.where(length[:, None] > 0, weights.W_dec / row, basis)
    folded = {
        "W_enc": weights.W_enc * column,
        "b_enc": weights.b_enc * gain,
        "W_dec": W_dec,
        "b_dec": weights.b_dec / scale,
    }
    if weights.threshold is not None:
        folded["threshold"] = weights.threshold.clamp(min=0) * gain
    return {name: tensor.float().contiguous() for name, tensor in folded.items()}


def _one_length(length: Float[Tensor, " F"]) -> Float[Tensor, " F"]:
    """The length that all rows share: a top-k of pre-activations survives one common factor, and no other."""
    common = (length.max() + length.min()) / 2
    if not float((length / common - 1).abs().max()) <= UNIT_TOLERANCE:
        what = (
            f"rows are {float(length.min()):.4g} to {float(length.max()):.4g} long; the k largest are chosen by "
            "pre-activation alone, and in the canonical form, whose rows have unit norm, others would be chosen"
        )
        raise ForeignFormat([("W_dec", what)], source="weights of a top-k SAE")
    canonical = bool(((length - 1).abs() <= UNIT_TOLERANCE).all())
    return torch.ones_like(length) if canonical else torch.full_like(length, float(common))


def gated(
    W_enc: Float[Tensor, "D F"],
    r_mag: Float[Tensor, " F"],
    b_mag: Float[Tensor, " F"],
    b_gate: Float[Tensor, " F"],
    *,
    W_dec: Float[Tensor, "F D"],
    b_dec: Float[Tensor, " D"],
    apply_b_dec_to_input: bool = True,
) -> ForeignWeights:
    """A gated SAE with tied directions as a JumpReLU SAE (Rajamanoharan et al. 2024, arXiv 2404.16014).

    The gate opens where z + b_gate > 0, and then the magnitude e^r·z + b_mag exceeds b_mag − e^r·b_gate.
    """
    gain = r_mag.exp()
    return ForeignWeights(
        W_enc=W_enc * gain,
        b_enc=b_mag,
        W_dec=W_dec,
        b_dec=b_dec,
        threshold=(b_mag - gain * b_gate).clamp(min=0),
        apply_b_dec_to_input=apply_b_dec_to_input,
    )


def no_transcoder(sae: Sae, faults: Faults) -> None:
    """A transcoder written as an autoencoder would be taken for one."""
    if sae.meta.target_site is not None:
        faults.add(
            "sae.json: target_site", f"a transcoder ({sae.meta.site} → {sae.meta.target_site}) is not written"
        )


@torch.no_grad()
def with_b_dec_on_input(sae: Sae, *, wanted: bool) -> Sae:
    """The same function with b_dec taken off the input, or not: (x − b) W + c = x W + (c − b W)."""
    if sae.meta.apply_b_dec_to_input == wanted:
        return sae
    shift = sae.b_dec.double() @ sae.W_enc.double()
    b_enc = (sae.b_enc.double() + (shift if wanted else -shift)).float()
    return replace(sae, b_enc=b_enc, meta=sae.meta.model_copy(update={"apply_b_dec_to_input": wanted}))
