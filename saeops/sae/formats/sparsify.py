"""sparsify: `{hookpoint}/cfg.json` and `{hookpoint}/sae.safetensors`.

Names and arithmetic as in sparsify/{sparse_coder,fused_encoder,config}.py, read at version 1.3.3.

# D d_model, F latent
"""

import json
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import NonNegativeInt, PositiveInt
from safetensors.torch import save

from saeops.refs import parse_site
from saeops.sae.canonical import Sae
from saeops.sae.formats.folding import ForeignWeights, Imported, no_transcoder, with_b_dec_on_input
from saeops.sae.formats.reading import (
    Faults,
    ForeignConfig,
    as_float32,
    read_config,
    read_safetensors,
    refusing,
)

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"

_HOOKPOINT = re.compile(r"(?:.+\.)?(?:layers|h)\.(\d+)(?:\.(mlp|attn|self_attn|attention))?")


class _Config(ForeignConfig):
    d_in: PositiveInt
    k: PositiveInt
    activation: Annotated[
        Literal["topk"], refusing({"groupmax": "it keeps the largest of each of k groups, not the k largest"})
    ] = "topk"
    expansion_factor: PositiveInt = 32
    num_latents: NonNegativeInt = 0
    """0: expansion_factor · d_in."""
    skip_connection: Annotated[
        Literal[False],
        refusing({True: "W_skip leads past the latents; a canonical SAE has no such path"}),
    ] = False
    transcode: bool = False
    """b_dec is then not taken off the input."""
    signed: Annotated[Literal[False], refusing({True: "it lets negative values through"})] = False
    """Of early versions."""


def read(folder: Path) -> Imported:
    """Read the folder of one hookpoint, as `save_to_disk` leaves it. The folder's name is the hookpoint.

    Raises:
        ForeignFormat: files, tensors or settings that are missing or cannot be held; all of them.
    """
    faults = Faults(folder, "sparsify")
    config = read_config(folder / CONFIG, _Config, faults)
    tensors = read_safetensors(folder / WEIGHTS, faults)
    if config is None:
        raise faults.error()
    D, F = config.d_in, config.num_latents or config.expansion_factor * config.d_in
    if config.k > F:
        faults.add(f"{CONFIG}: k", f"must be at most the {F} latents (got {config.k})")
    if tensors:
        shapes = {"encoder.weight": (F, D), "encoder.bias": (F,), "W_dec": (F, D), "b_dec": (D,)}
        tensors = as_float32(tensors, shapes, WEIGHTS, faults)
    faults.stop()
    hook = folder.resolve().name
    return Imported(
        weights=ForeignWeights(
            W_enc=tensors["encoder.weight"].t(),
            b_enc=tensors["encoder.bias"],
            W_dec=tensors["W_dec"],
            b_dec=tensors["b_dec"],
            k=config.k,
            apply_b_dec_to_input=not config.transcode,
        ),
        architecture="transcoder" if config.transcode else "topk",
        hook=f"the input of {hook}" if config.transcode else hook,
        site=_input_site(site_of(hook)) if config.transcode else site_of(hook),
        transcoder=config.transcode,
        target_site=site_of(hook) if config.transcode else None,
    )


def site_of(hookpoint: str) -> str | None:
    """`layers.10` → `blocks.10.resid_post`; None for modules that are no site."""
    match = _HOOKPOINT.fullmatch(hookpoint)
    if match is None:
        return None
    kind = {None: "resid_post", "mlp": "mlp_out"}.get(match[2], "attn_out")
    return f"blocks.{match[1]}.{kind}"


def _input_site(output: str | None) -> str | None:
    """Where the module reads that ends at `output`: a block reads what the block before it leaves.

    The inputs of its parts stand behind a norm and are no sites.
    """
    block, kind = parse_site(output) if output else (0, None)
    return f"blocks.{block - 1}.resid_post" if kind == "resid_post" and block > 0 else None


def hookpoint_of(site: str) -> str | None:
    """`blocks.10.resid_post` → `layers.10`; None for a site that is no module's output."""
    block, kind = parse_site(site)
    match kind:
        case "resid_post":
            return f"layers.{block}"
        case "mlp_out":
            return f"layers.{block}.mlp"
        case "attn_out":
            return f"layers.{block}.self_attn"
        case "mlp_hidden":
            return None


def files_of(sae: Sae) -> dict[str, bytes]:
    """The files of `{hookpoint}/`, which `SparseCoder.load_from_disk` reads; equal SAEs give equal bytes.

    Raises:
        ForeignFormat: an SAE without k, or at a site that is no module's output.
    """
    faults = Faults(f"the {sae.meta.variant} SAE", "sparsify")
    hookpoint = hookpoint_of(sae.meta.site)
    no_transcoder(sae, faults)
    if sae.k is None:
        faults.add("sae.json: k", "sparsify knows top-k SAEs only; this one fires by threshold")
    if hookpoint is None:
        faults.add("sae.json: site", f"sparsify reads outputs of modules, and {sae.meta.site} is an input")
    faults.stop()
    assert hookpoint is not None
    sae = with_b_dec_on_input(sae, wanted=True)
    tensors = {
        "encoder.weight": sae.W_enc.t(),
        "encoder.bias": sae.b_enc,
        "W_dec": sae.W_dec,
        "b_dec": sae.b_dec,
    }
    config = {
        "activation": "topk",
        "d_in": sae.meta.d_model,
        "expansion_factor": max(1, sae.meta.d_sae // sae.meta.d_model),
        "k": sae.k,
        "multi_topk": False,
        "normalize_decoder": True,
        "num_latents": sae.meta.d_sae,
        "skip_connection": False,
        "transcode": False,
    }
    weights = save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
    text = json.dumps(config, indent=1, sort_keys=True) + "\n"
    return {f"{hookpoint}/{WEIGHTS}": weights, f"{hookpoint}/{CONFIG}": text.encode()}
