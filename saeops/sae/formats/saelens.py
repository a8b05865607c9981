"""SAELens from version 6 on: `cfg.json` and `sae_weights.safetensors`.

Names and arithmetic as in sae_lens/saes/{standard,topk,jumprelu,gated}_sae.py, read at version 6.54.12.

# D d_model, F latent
"""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt
from safetensors.torch import save

from saeops.refs import parse_site
from saeops.sae.canonical import Sae
from saeops.sae.formats.folding import ForeignWeights, Imported, gated, no_transcoder
from saeops.sae.formats.reading import (
    Faults,
    ForeignConfig,
    as_float32,
    read_config,
    read_safetensors,
    refusing,
)

CONFIG, WEIGHTS, SCALER = "cfg.json", "sae_weights.safetensors", "activation_scaler.json"
WRITTEN_AS = "6.0.0"
"""Version whose layout is written; SAELens takes a config without one for a folder of version 5."""

_CHECKPOINT = "a training checkpoint; `save_inference_model` of SAELens writes it as jumprelu, import that"
_TRANSCODER = "a transcoder, which is read from sparsify only"
_OTHER_ENCODER = "its encoder is no linear map followed by a threshold or the k largest values"
_BY_TOKEN = "each token is divided by its own norm or deviation, which no fixed weights can do"
_ARCHITECTURES = {
    "batchtopk": _CHECKPOINT,
    "matryoshka_batchtopk": _CHECKPOINT,
    "transcoder": _TRANSCODER,
    "skip_transcoder": _TRANSCODER,
    "jumprelu_transcoder": _TRANSCODER,
    "jumprelu_skip_transcoder": _TRANSCODER,
    "abstopk": "it lets negative values through",
    "temporal": _OTHER_ENCODER,
    "matching_pursuit": _OTHER_ENCODER,
}
_NORMALISATIONS = {
    "constant_norm_rescale": _BY_TOKEN,
    "layer_norm": _BY_TOKEN,
    "covariance_whitening": "its matrix is not in the weights; SAELens' `fold_activation_whitening` puts it there",
}
_HOOKS = {
    "hook_resid_post": "resid_post",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "mlp.hook_post": "mlp_hidden",
}


class _Metadata(ForeignConfig):
    model_name: str | None = None
    hook_name: str | None = None
    hook_head_index: None = None
    """SAELens reads one attention head alone where it is set."""
    prepend_bos: bool | None = None
    model_from_pretrained_kwargs: dict[str, Any] | None = None


class _Config(ForeignConfig):
    architecture: Annotated[Literal["standard", "topk", "jumprelu", "gated"], refusing(_ARCHITECTURES)]
    d_in: PositiveInt
    d_sae: PositiveInt
    apply_b_dec_to_input: bool = True
    normalize_activations: Annotated[Literal["none", "expected_average_only_in"], refusing(_NORMALISATIONS)] = (
        "none"
    )
    reshape_activations: Annotated[
        Literal["none"], refusing({"hook_z": "the heads' outputs before their projection are no site of saeops"})
    ] = "none"
    k: PositiveInt | None = None
    rescale_acts_by_decoder_norm: bool = False
    metadata: _Metadata
    """Version 5 has none: `SAE.load_from_disk` and `save_model` of SAELens 6 write it anew."""


class _Scaler(ForeignConfig):
    scaling_factor: float = Field(gt=0)
    has_whitening: Literal[False] = False


def read(folder: Path) -> Imported:
    """Read a folder that SAELens saved.

    Raises:
        ForeignFormat: files, tensors or settings that are missing or cannot be held; all of them.
    """
    faults = Faults(folder, "saelens")
    config = read_config(folder / CONFIG, _Config, faults)
    tensors = read_safetensors(folder / WEIGHTS, faults)
    if config is None:
        raise faults.error()
    if config.architecture == "topk" and not 0 < (config.k or 0) <= config.d_sae:
        faults.add(f"{CONFIG}: k", f"a top-k SAE needs one from 1 to d_sae (got {config.k})")
    scale = _input_scale(folder, config, faults)
    if tensors:
        tensors = as_float32(tensors, _shapes(config), WEIGHTS, faults)
    faults.stop()
    meta = config.metadata
    return Imported(
        weights=_weights(config, tensors, scale),
        architecture=config.architecture,
        hook=meta.hook_name or "",
        site=site_of(meta.hook_name or ""),
        model=meta.model_name or "",
        prepend_bos=meta.prepend_bos,
        notes=_notes(meta),
    )


def _shapes(config: _Config) -> dict[str, tuple[int, ...]]:
    D, F = config.d_in, config.d_sae
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (D, F), "W_dec": (F, D), "b_dec": (D,)}
    match config.architecture:
        case "standard" | "topk":
            return shapes | {"b_enc": (F,)}
        case "jumprelu":
            return shapes | {"b_enc": (F,), "threshold": (F,)}
        case "gated":
            return shapes | {"b_gate": (F,), "b_mag": (F,), "r_mag": (F,)}


def _weights(config: _Config, tensors: dict[str, Any], scale: float) -> ForeignWeights:
    if config.architecture == "gated":
        made = gated(**tensors, apply_b_dec_to_input=config.apply_b_dec_to_input)
        return replace(made, input_scale=scale)
    return ForeignWeights(
        **tensors,
        k=config.k if config.architecture == "topk" else None,
        apply_b_dec_to_input=config.apply_b_dec_to_input,
        selects_by_length=config.rescale_acts_by_decoder_norm,
        input_scale=scale,
    )


def _input_scale(folder: Path, config: _Config, faults: Faults) -> float:
    """What activations are multiplied by. A finished SAE has it folded in and says "none"."""
    if config.normalize_activations == "none":
        return 1.0
    if not (folder / SCALER).is_file():
        what = (
            f"the scale is neither folded into the weights nor in {SCALER}; "
            "load it with `SAE.from_pretrained` of SAELens, which folds it, and save that"
        )
        faults.add(f"{CONFIG}: normalize_activations", what)
        return 1.0
    scaler = read_config(folder / SCALER, _Scaler, faults)
    return scaler.scaling_factor if scaler else 1.0


def _notes(meta: _Metadata) -> tuple[str, ...]:
    changed = meta.model_from_pretrained_kwargs
    if not changed:
        return ()
    return (f"it was trained on a model that TransformerLens loaded with {changed}; plain activations may differ",)


def site_of(hook_name: str) -> str | None:
    """`blocks.10.hook_resid_post` → `blocks.10.resid_post`; None for hooks that are no site."""
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", hook_name)
    if match is None:
        return None
    block, hook = int(match[1]), match[2]
    if hook == "hook_resid_pre" and block > 0:
        return f"blocks.{block - 1}.resid_post"
    return f"blocks.{block}.{_HOOKS[hook]}" if hook in _HOOKS else None


def hook_of(site: str) -> str:
    """`blocks.10.resid_post` → `blocks.10.hook_resid_post`."""
    block, kind = parse_site(site)
    (hook,) = (hook for hook, name in _HOOKS.items() if name == kind)
    return f"blocks.{block}.{hook}"


def files_of(sae: Sae) -> dict[str, bytes]:
    """The files of a folder that `SAE.load_from_disk` reads; equal SAEs give equal bytes.

    Raises:
        ForeignFormat: a transcoder.
    """
    faults = Faults(f"the {sae.meta.variant} SAE", "saelens")
    no_transcoder(sae, faults)
    faults.stop()
    tensors = {name: tensor.cpu().contiguous() for name, tensor in sae.tensors().items()}
    if sae.k is not None:
        # A canonical SAE with k looks at no threshold.
        tensors.pop("threshold", None)
    config = json.dumps(config_of(sae), indent=1, sort_keys=True)
    return {WEIGHTS: save(tensors), CONFIG: config.encode() + b"\n"}


def config_of(sae: Sae) -> dict[str, Any]:
    """The content of `cfg.json`."""
    config: dict[str, Any] = {
        "architecture": "jumprelu" if sae.threshold is not None else "standard",
        "d_in": sae.meta.d_model,
        "d_sae": sae.meta.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.meta.apply_b_dec_to_input,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "model_name": sae.meta.model.get("ref"),
            "hook_name": hook_of(sae.meta.site),
            "hook_head_index": None,
            "prepend_bos": sae.meta.policy.prepend_bos,
            "exclude_special_tokens": sae.meta.policy.mask_special,
            "sae_lens_version": WRITTEN_AS,
            "sae_lens_training_version": None,
            "trained_by": f"saeops {sae.meta.variant}",
        },
    }
    if sae.k is not None:
        # A canonical SAE's rows have unit norm already.
        config |= {"architecture": "topk", "k": sae.k, "rescale_acts_by_decoder_norm": False}
    return config
