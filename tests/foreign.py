"""Folders as other libraries leave them, made by hand: names, shapes and arithmetic as their sources have them.

# T token, D d_model, F latent
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

D, F, K = 12, 50, 5
HOOK = "blocks.10.hook_resid_post"


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rows(*, unit: bool) -> Tensor:
    """Decoder rows of length 1, or of 0.3 to 3."""
    directions = torch.nn.functional.normalize(draw(1, F, D), dim=1)
    return directions if unit else directions * torch.linspace(0.3, 3, F)[:, None]


def tokens() -> Tensor:
    return draw(9, 300, D) + 2 * draw(10, D)


def saelens_config(**changes: Any) -> dict[str, Any]:
    metadata = {"model_name": "gpt2-small", "hook_name": HOOK, "hook_head_index": None, "prepend_bos": True}
    return {
        "d_in": D,
        "d_sae": F,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": metadata | {"sae_lens_version": "6.54.12"},
        "architecture": "standard",
    } | changes


def saelens_tensors(*, unit: bool = False) -> dict[str, Tensor]:
    return {"W_enc": draw(2, D, F), "b_enc": draw(3, F), "W_dec": rows(unit=unit), "b_dec": draw(4, D)}


def gate() -> dict[str, Tensor]:
    return {"r_mag": 0.3 * draw(5, F), "b_mag": draw(6, F), "b_gate": draw(7, F)}


def saelens_folder(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file(dict(tensors), folder / "sae_weights.safetensors")
    return folder


def sparsify_config(**changes: Any) -> dict[str, Any]:
    return {
        "activation": "topk",
        "expansion_factor": 32,
        "normalize_decoder": True,
        "num_latents": F,
        "k": K,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": D,
    } | changes


def sparsify_tensors() -> dict[str, Tensor]:
    return {
        "encoder.weight": draw(2, F, D),
        "encoder.bias": draw(3, F),
        "W_dec": rows(unit=True),
        "b_dec": draw(4, D),
    }


def sparsify_folder(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "sae.safetensors")
    return folder


def dictionary_config(dict_class: str, /, **changes: Any) -> dict[str, Any]:
    trainer = {"dict_class": dict_class, "activation_dim": D, "dict_size": F, "k": K, "layer": 10}
    trainer |= {"lm_name": "EleutherAI/pythia-70m", "submodule_name": "resid_post_layer_10"}
    return {"trainer": trainer | changes, "buffer": {"d_submodule": D, "ctx_len": 128}}


def dictionary_tensors(dict_class: str) -> dict[str, Tensor]:
    encoder = {"encoder.weight": draw(2, F, D), "encoder.bias": draw(3, F)}
    decoder = {"decoder.weight": rows(unit=dict_class == "AutoEncoderTopK").t().contiguous()}
    numbers = {"k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(1.1)}
    match dict_class:
        case "AutoEncoder":
            return encoder | decoder | {"bias": draw(4, D)}
        case "AutoEncoderNew":
            return encoder | decoder | {"decoder.bias": draw(4, D)}
        case "GatedAutoEncoder":
            parts = {"r_mag": gate()["r_mag"], "mag_bias": gate()["b_mag"], "gate_bias": gate()["b_gate"]}
            return {"encoder.weight": draw(2, F, D)} | decoder | parts | {"decoder_bias": draw(4, D)}
        case "JumpReluAutoEncoder":
            return saelens_tensors() | {"threshold": draw(8, F).abs()}
        case "MatryoshkaBatchTopKSAE":
            return saelens_tensors() | numbers | {"group_sizes": torch.tensor([20, 30])}
        case _:
            return encoder | decoder | {"b_dec": draw(4, D)} | numbers


def dictionary_folder(folder: Path, config: Mapping[str, Any], state: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(state, folder / "ae.pt")
    return folder


def gemma_arrays() -> dict[str, np.ndarray]:
    tensors = saelens_tensors() | {"threshold": draw(8, F).abs()}
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def gemma_folder(folder: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "params.npz", **arrays)  # type: ignore[arg-type]
    return folder
