"""dictionary_learning: `ae.pt` (a state dict) and `config.json`.

Names and arithmetic as in dictionary.py, trainers/{top_k,batch_top_k,matryoshka_batch_top_k}.py and
utils.load_dictionary, read at version 0.1.0.

# D d_model, F latent
"""

import io
import json
import re
from pathlib import Path
from typing import Any, Literal, assert_never

import torch
from pydantic import PositiveInt
from torch import Tensor

from saeops.refs import parse_site
from saeops.sae.canonical import Sae
from saeops.sae.formats.folding import ForeignWeights, Imported, gated, no_transcoder, with_b_dec_on_input
from saeops.sae.formats.reading import (
    Faults,
    ForeignConfig,
    as_float32,
    read_config,
    read_torch,
    sides_of,
)

CONFIG, WEIGHTS = "config.json", "ae.pt"

Class = Literal[
    "AutoEncoder",
    "AutoEncoderNew",
    "GatedAutoEncoder",
    "JumpReluAutoEncoder",
    "AutoEncoderTopK",
    "BatchTopKSAE",
    "MatryoshkaBatchTopKSAE",
]
_KINDS = {"resid_post": "resid_post", "mlp_out": "mlp_out", "attention_out": "attn_out", "attn_out": "attn_out"}


class _Trainer(ForeignConfig):
    dict_class: Class
    activation_dim: PositiveInt | None = None
    dict_size: PositiveInt | None = None
    k: PositiveInt | None = None
    lm_name: str | None = None
    submodule_name: str | None = None


class _Config(ForeignConfig):
    trainer: _Trainer


def read(folder: Path) -> Imported:
    """Read a folder that `trainSAE` left.

    Raises:
        ForeignFormat: files, tensors or settings that are missing or cannot be held, or a file that would
            have to be unpickled; all of them.
    """
    faults = Faults(folder, "dictionary_learning")
    config = read_config(folder / CONFIG, _Config, faults)
    tensors = read_torch(folder / WEIGHTS, faults)
    if config is None or not tensors:
        raise faults.error()
    trainer = config.trainer
    sizes = _sizes(trainer, tensors, faults)
    if sizes is None:
        raise faults.error()
    numbers = _scalars(trainer, tensors, faults)
    checked = as_float32(tensors, _shapes(trainer.dict_class, *sizes), WEIGHTS, faults)
    faults.stop()
    return Imported(
        weights=_weights(trainer.dict_class, checked, **numbers),
        architecture=trainer.dict_class,
        hook=trainer.submodule_name or "",
        site=site_of(trainer.submodule_name or ""),
        model=trainer.lm_name or "",
        notes=_notes(numbers.get("threshold")),
    )


def _sizes(trainer: _Trainer, tensors: dict[str, Tensor], faults: Faults) -> tuple[int, int] | None:
    """D and F, as the config and the encoder's matrix both have them."""
    transposed = trainer.dict_class in ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE")
    sides = sides_of(tensors, "W_enc" if transposed else "encoder.weight", WEIGHTS, faults)
    if sides is None:
        return None
    D, F = sides if transposed else sides[::-1]
    for key, said, found in (("activation_dim", trainer.activation_dim, D), ("dict_size", trainer.dict_size, F)):
        if said is not None and said != found:
            faults.add(f"{CONFIG}: trainer.{key}", f"is {said}, and the encoder in {WEIGHTS} has {found}")
    return D, F


def _scalars(trainer: _Trainer, tensors: dict[str, Tensor], faults: Faults) -> dict[str, Any]:
    """Takes k, threshold and the groups of the top-k classes out of the tensors."""
    if trainer.dict_class not in ("AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE"):
        return {}
    found: dict[str, Any] = {}
    for name in ("k", "threshold"):
        value = tensors.pop(name, None)
        if value is not None and value.numel() != 1:
            faults.add(f"{WEIGHTS}: {name}", f"is {list(value.shape)}, not a number")
        elif value is not None:
            found[name] = value.item()
    # They say which prefixes were trained together; at inference all of them are used.
    tensors.pop("group_sizes", None)
    if trainer.dict_class == "AutoEncoderTopK":
        found["k"] = _k(trainer, found.get("k"), faults)
        found.pop("threshold", None)
    elif not found.get("threshold", float("nan")) < float("inf"):
        faults.add(f"{WEIGHTS}: threshold", f"a number belongs there (got {found.get('threshold')})")
    else:
        found.pop("k", None)
    return found


def _k(trainer: _Trainer, stored: int | None, faults: Faults) -> int | None:
    if stored is not None and trainer.k is not None and stored != trainer.k:
        faults.add(f"{CONFIG}: trainer.k", f"is {trainer.k}, and k in {WEIGHTS} is {stored}")
    k = trainer.k if stored is None else stored
    if k is None or k < 1:
        faults.add(f"{WEIGHTS}: k", "a number from 1 on belongs there or in the config's trainer.k")
    return k


def _shapes(dict_class: Class, D: int, F: int) -> dict[str, tuple[int, ...]]:
    match dict_class:
        case "AutoEncoder":
            return {"encoder.weight": (F, D), "encoder.bias": (F,), "decoder.weight": (D, F), "bias": (D,)}
        case "AutoEncoderNew":
            return {"encoder.weight": (F, D), "encoder.bias": (F,), "decoder.weight": (D, F), "decoder.bias": (D,)}
        case "GatedAutoEncoder":
            shapes = {"encoder.weight": (F, D), "decoder.weight": (D, F), "decoder_bias": (D,)}
            return shapes | {"r_mag": (F,), "mag_bias": (F,), "gate_bias": (F,)}
        case "JumpReluAutoEncoder":
            return {"W_enc": (D, F), "b_enc": (F,), "W_dec": (F, D), "b_dec": (D,), "threshold": (F,)}
        case "AutoEncoderTopK" | "BatchTopKSAE":
            return {"encoder.weight": (F, D), "encoder.bias": (F,), "decoder.weight": (D, F), "b_dec": (D,)}
        case "MatryoshkaBatchTopKSAE":
            return {"W_enc": (D, F), "b_enc": (F,), "W_dec": (F, D), "b_dec": (D,)}
        case _:
            assert_never(dict_class)


def _weights(
    dict_class: Class, tensors: dict[str, Tensor], *, k: int | None = None, threshold: float | None = None
) -> ForeignWeights:
    renamed: dict[str, Any] = dict(tensors)
    for theirs, ours in (("encoder.weight", "W_enc"), ("decoder.weight", "W_dec")):
        if theirs in renamed:
            renamed[ours] = renamed.pop(theirs).t()
    match dict_class:
        case "GatedAutoEncoder":
            return gated(
                renamed["W_enc"],
                renamed["r_mag"],
                renamed["mag_bias"],
                renamed["gate_bias"],
                W_dec=renamed["W_dec"],
                b_dec=renamed["decoder_bias"],
            )
        case "JumpReluAutoEncoder":
            return ForeignWeights(**renamed, apply_b_dec_to_input=False)
        case "AutoEncoder" | "AutoEncoderNew":
            b_dec = renamed["bias" if dict_class == "AutoEncoder" else "decoder.bias"]
            return ForeignWeights(
                W_enc=renamed["W_enc"],
                b_enc=renamed["encoder.bias"],
                W_dec=renamed["W_dec"],
                b_dec=b_dec,
                apply_b_dec_to_input=dict_class == "AutoEncoder",
            )
        case "AutoEncoderTopK" | "BatchTopKSAE" | "MatryoshkaBatchTopKSAE":
            b_enc = renamed.get("encoder.bias", renamed.get("b_enc"))
            assert b_enc is not None
            return ForeignWeights(
                W_enc=renamed["W_enc"],
                b_enc=b_enc,
                W_dec=renamed["W_dec"],
                b_dec=renamed["b_dec"],
                threshold=None if threshold is None else torch.full_like(b_enc, threshold),
                k=k,
            )
        case _:
            assert_never(dict_class)


def _notes(threshold: float | None) -> tuple[str, ...]:
    if threshold is None or threshold >= 0:
        return ()
    return (f"its threshold is {threshold}, so it was never estimated: every positive latent fires",)


def site_of(submodule_name: str) -> str | None:
    """`resid_post_layer_10` → `blocks.10.resid_post`; None for other names."""
    match = re.fullmatch(r"(\w+?)_layer_(\d+)", submodule_name)
    return f"blocks.{match[2]}.{_KINDS[match[1]]}" if match and match[1] in _KINDS else None


def files_of(sae: Sae) -> dict[str, bytes]:
    """The files of a folder that `load_dictionary` reads: AutoEncoderTopK, JumpReluAutoEncoder or AutoEncoder.

    `ae.pt` is torch's own archive of plain tensors, as the library wants it.

    Raises:
        ForeignFormat: a transcoder.
    """
    faults = Faults(f"the {sae.meta.variant} SAE", "dictionary_learning")
    no_transcoder(sae, faults)
    faults.stop()
    block, kind = parse_site(sae.meta.site)
    dict_class, state = _state(sae)
    trainer = {
        "trainer_class": None,
        "dict_class": dict_class,
        "activation_dim": sae.meta.d_model,
        "dict_size": sae.meta.d_sae,
        "k": sae.k,
        "layer": block,
        "lm_name": sae.meta.model.get("ref"),
        "submodule_name": f"{kind}_layer_{block}",
        "trained_by": f"saeops {sae.meta.variant}",
    }
    buffer = io.BytesIO()
    torch.save({name: tensor.cpu().contiguous() for name, tensor in state.items()}, buffer)
    config = json.dumps({"trainer": trainer, "buffer": {}}, indent=1, sort_keys=True)
    return {WEIGHTS: buffer.getvalue(), CONFIG: config.encode() + b"\n"}


def _state(sae: Sae) -> tuple[Class, dict[str, Tensor]]:
    """The class that computes the same, and its state dict."""
    if sae.k is None and sae.threshold is not None:
        state = with_b_dec_on_input(sae, wanted=False).tensors()
        return "JumpReluAutoEncoder", state
    sae = with_b_dec_on_input(sae, wanted=True)
    state = {"encoder.weight": sae.W_enc.t(), "encoder.bias": sae.b_enc, "decoder.weight": sae.W_dec.t()}
    if sae.k is None:
        return "AutoEncoder", state | {"bias": sae.b_dec}
    # −1 is the library's own mark of a threshold that was never estimated; its top-k does not look at it.
    numbers = {"k": torch.tensor(sae.k, dtype=torch.int), "threshold": torch.tensor(-1.0)}
    return "AutoEncoderTopK", state | {"b_dec": sae.b_dec} | numbers
