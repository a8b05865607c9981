"""The canonical form of an SAE: what is saved, bundled and used, whatever trained it.

The training scale is folded in, decoder rows have unit norm (so a latent's
activation is the length it adds, in the model's own units), and everything is
fp32. Format: docs/formats/sae.md.

# T token, D d_model, E width of the output (D in an autoencoder), F latent
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn.functional import embedding_bag

from saeops.activations.policy import TokenPolicy
from saeops.activations.sites import Sites
from saeops.config import Frozen
from saeops.errors import FolderDamaged, StageMissing
from saeops.files import write_atomic
from saeops.sae.codes import Codes
from saeops.sae.encoder import Encoder

WEIGHTS = "sae.safetensors"
META = "sae.json"
UNIT_TOLERANCE = 1e-4


class SaeMeta(Frozen):
    """What an SAE is and what it was trained on; the content of `sae.json`."""

    variant: str
    """Name of the variant that trained it."""
    site: str
    """Where in the model it reads."""
    target_site: str | None = None
    """Where what it gives back belongs, for a transcoder; null: an autoencoder, which gives back what it reads."""
    d_model: int
    """Width at `site`."""
    d_out: int | None = None
    """Width at `target_site`; null: d_model."""
    d_sae: int
    k: int | None = None
    """Latents kept a token; null: every latent above its threshold fires."""
    apply_b_dec_to_input: bool = True
    """Whether b_dec is taken off the input before the encoder; never in a transcoder, where it lives elsewhere."""
    model: dict[str, Any] = Field(default_factory=dict)
    """Identity of the language model."""
    policy: TokenPolicy = TokenPolicy()
    """Which token positions it was trained on, and is meant for."""
    norm_limit: float | None = None
    """Tokens whose activation norm at `site` exceeds this were left out."""
    target_norm_limit: float | None = None
    """The same at `target_site`."""

    @model_validator(mode="after")
    def _b_dec_is_not_of_the_inputs_space(self) -> Self:
        if self.target_site is not None and self.apply_b_dec_to_input:
            raise ValueError("apply_b_dec_to_input must be false where target_site is set")
        return self

    @property
    def sites(self) -> Sites:
        """Where it reads, and where what it gives back belongs."""
        return Sites.of(self.site, self.target_site)

    @property
    def width_out(self) -> int:
        """Width of what it gives back."""
        return self.d_model if self.d_out is None else self.d_out


@dataclass(frozen=True)
class Sae:
    """A trained SAE: f = act((x − b_dec) W_enc + b_enc), ŷ = f W_dec + b_dec.

    ŷ stands for x, or, in a transcoder (where nothing is taken off x), for the activation y at another site.
    """

    W_enc: Float[Tensor, "D F"]
    b_enc: Float[Tensor, " F"]
    W_dec: Float[Tensor, "F E"]
    """Rows of unit norm."""
    b_dec: Float[Tensor, " E"]
    threshold: Float[Tensor, " F"] | None
    """A latent at or below it does not fire; None: 0."""
    meta: SaeMeta

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], meta: SaeMeta) -> Self:
        """From weights by name, as `tensors` gives them."""
        threshold = tensors.get("threshold")
        return cls(tensors["W_enc"], tensors["b_enc"], tensors["W_dec"], tensors["b_dec"], threshold, meta)

    @property
    def k(self) -> int | None:
        """Latents kept a token; None: every latent above its threshold fires."""
        return self.meta.k

    def pre(self, x_TD: Float[Tensor, "T D"]) -> Float[Tensor, "T F"]:
        """Pre-activations, dense: T × F values, so only for few tokens."""
        return torch.addmm(self.b_enc, self._centred(x_TD), self.W_enc)

    @torch.no_grad()
    def encode(self, x_TD: Float[Tensor, "T D"]) -> Codes:
        """The latents that fire on each token, exactly; no dense T × F tensor is made."""
        centred_TD = self._centred(x_TD.float()).contiguous()
        if self.k is not None:
            return self._encoder.topk(centred_TD, self.k)
        return self._encoder.above(centred_TD, self.threshold)

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder(self.W_enc, self.b_enc)

    def _centred(self, x_TD: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        return x_TD - self.b_dec if self.meta.apply_b_dec_to_input else x_TD

    @torch.no_grad()
    def decode(self, codes: Codes) -> Float[Tensor, "T E"]:
        """The activations that the codes stand for: those read, or a transcoder's at its target site."""
        if len(codes.latent) == 0:
            return self.b_dec.repeat(codes.tokens, 1)
        summed = embedding_bag(
            codes.latent, self.W_dec, codes.offsets[:-1], mode="sum", per_sample_weights=codes.value
        )
        return summed + self.b_dec

    def reconstruct(self, x_TD: Float[Tensor, "T D"]) -> Float[Tensor, "T E"]:
        """decode(encode(x))."""
        return self.decode(self.encode(x_TD))

    def only(self, latents_L: Int[Tensor, " L"]) -> Self:
        """The SAE of these latents alone, which count as 0 to L − 1 there.

        They fire exactly as in this one, for no latent competes; so never of an SAE that keeps k a token.
        """
        assert self.k is None, "all latents must compete"
        threshold = None if self.threshold is None else self.threshold[latents_L]
        meta = self.meta.model_copy(update={"d_sae": len(latents_L)})
        W_enc, b_enc, W_dec = self.W_enc[:, latents_L], self.b_enc[latents_L], self.W_dec[latents_L]
        return type(self)(W_enc, b_enc, W_dec, self.b_dec, threshold, meta)

    def to(self, device: str | torch.device) -> Self:
        """The same SAE on another device."""
        return self.of({name: tensor.to(device) for name, tensor in self.tensors().items()}, self.meta)

    def tensors(self) -> dict[str, Tensor]:
        """The weights by name; no `threshold` where there is none."""
        named = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "meta"}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def save(self, folder: Path) -> None:
        """Write `sae.safetensors` and `sae.json`; equal SAEs give equal bytes."""
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.tensors().items()}
        _check(tensors, self.meta, folder / WEIGHTS)
        write_atomic(folder / WEIGHTS, save(tensors))
        text = json.dumps(self.meta.model_dump(mode="json"), indent=1, sort_keys=True)
        write_atomic(folder / META, text.encode() + b"\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            StageMissing: there is no SAE in the folder.
            FolderDamaged: a file that cannot be read, or tensors that are not those of an SAE.
        """
        try:
            meta = SaeMeta.model_validate_json((folder / META).read_bytes())
            tensors = load_file(folder / WEIGHTS)
        except FileNotFoundError as error:
            raise StageMissing(f"no SAE in {folder}", hint="run `saeops train` first") from error
        except (ValidationError, SafetensorError, UnicodeDecodeError) as error:
            raise _damaged(folder, str(error).splitlines()[0]) from error
        _check(tensors, meta, folder / WEIGHTS)
        return cls.of(tensors, meta)


def _check(tensors: Mapping[str, Tensor], meta: SaeMeta, path: Path) -> None:
    D, E, F = meta.d_model, meta.width_out, meta.d_sae
    shapes = {"W_enc": (D, F), "b_enc": (F,), "W_dec": (F, E), "b_dec": (E,), "threshold": (F,)}
    if tensors.keys() | {"threshold"} != shapes.keys():
        raise _damaged(path, f"holds {', '.join(sorted(tensors))}; an SAE has {', '.join(shapes)}")
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != shapes[name] or tensor.dtype != torch.float32:
            found = f"{tensor.dtype} {list(tensor.shape)}"
            raise _damaged(path, f"{name} is {found}, not float32 {list(shapes[name])}")
        if not tensor.isfinite().all():
            raise _damaged(path, f"{name} holds NaN or infinity")
    furthest = float((tensors["W_dec"].norm(dim=1) - 1).abs().max())
    if furthest > UNIT_TOLERANCE:
        raise _damaged(path, f"a row of W_dec is {furthest:.2g} away from unit norm")


def _damaged(path: Path, what: str) -> FolderDamaged:
    return FolderDamaged(f"{path}: {what}", hint="run `saeops train` again, or fetch the bundle again")
