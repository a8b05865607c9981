"""Folders of other libraries, made by hand: what they compute is what the imported SAE computes.

The formulas here are those of the libraries' own `encode` and `decode`; benchmarks/parity.py holds them
against the libraries themselves.

# T token, D d_model, F latent
"""

import contextlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from saeops.errors import ForeignFormat
from saeops.sae.formats import dictionary_learning, gemma_scope, saelens, sparsify
from saeops.sae.formats.folding import Imported
from saeops.sae.formats.names import FILES, Format, looks_like
from tests.foreign import (
    D,
    F,
    K,
    dictionary_config,
    dictionary_folder,
    dictionary_tensors,
    draw,
    gate,
    gemma_arrays,
    gemma_folder,
    rows,
    saelens_config,
    saelens_folder,
    saelens_tensors,
    sparsify_config,
    sparsify_folder,
    sparsify_tensors,
    tokens,
)

CLASSES = (
    "AutoEncoder",
    "AutoEncoderNew",
    "GatedAutoEncoder",
    "JumpReluAutoEncoder",
    "AutoEncoderTopK",
    "BatchTopKSAE",
    "MatryoshkaBatchTopKSAE",
)


def pre(x_TD: Tensor, t: dict[str, Tensor], *, b_dec: bool = True) -> Tensor:
    return (x_TD - t["b_dec"] * b_dec) @ t["W_enc"] + t["b_enc"]


def keep_k(values_TF: Tensor) -> Tensor:
    top = values_TF.relu().topk(K, dim=1)
    return torch.zeros_like(values_TF).scatter(1, top.indices, top.values)


def check(imported: Imported, f_TF: Tensor, W_dec: Tensor, b_dec: Tensor, *, scale: float = 1.0) -> None:
    """The imported SAE fires where the foreign f does, and reconstructs what f W_dec + b_dec does."""
    sae = imported.canonical(format="test", site="blocks.10.resid_post")
    ours_TF = sae.encode(tokens()).dense()
    assert torch.equal(ours_TF > 0, f_TF > 0)
    assert 0 < int((f_TF > 0).sum()) < f_TF.numel()
    torch.testing.assert_close(ours_TF, f_TF * W_dec.norm(dim=1) / scale, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sae.reconstruct(tokens()), (f_TF @ W_dec + b_dec) / scale, rtol=1e-4, atol=1e-4)


# ── SAELens ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("b_dec", [True, False])
@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "gated", "topk", "topk by length"])
def test_saelens_computes_the_same_here(tmp_path: Path, architecture: str, b_dec: bool) -> None:
    t = saelens_tensors(unit=architecture == "topk")
    config = saelens_config(architecture=architecture.split()[0], apply_b_dec_to_input=b_dec)
    norm, stored = t["W_dec"].norm(dim=1), dict(t)
    f_TF, decoder = pre(tokens(), t, b_dec=b_dec).relu(), t["W_dec"]
    if architecture == "jumprelu":
        stored["threshold"] = draw(8, F).abs()
        f_TF = f_TF * (pre(tokens(), t, b_dec=b_dec) > stored["threshold"])
    elif architecture == "gated":
        stored = {name: t[name] for name in ("W_enc", "W_dec", "b_dec")} | gate()
        z_TF = pre(tokens(), t, b_dec=b_dec) - t["b_enc"]
        f_TF = (z_TF + gate()["b_gate"] > 0) * (z_TF * gate()["r_mag"].exp() + gate()["b_mag"]).relu()
    elif architecture == "topk":
        config["k"] = K
        f_TF = keep_k(f_TF)
    elif architecture == "topk by length":
        config |= {"k": K, "rescale_acts_by_decoder_norm": True}
        f_TF, decoder = keep_k(f_TF * norm), t["W_dec"] / norm[:, None]
    imported = saelens.read(saelens_folder(tmp_path, config, stored))
    check(imported, f_TF, decoder, t["b_dec"])
    assert (imported.site, imported.model) == ("blocks.10.resid_post", "gpt2-small")


def test_an_input_scale_beside_a_saelens_checkpoint_reaches_all_weights(tmp_path: Path) -> None:
    scale, t, config = 0.2, saelens_tensors(), saelens_config(normalize_activations="expected_average_only_in")
    t["threshold"] = draw(8, F).abs()
    (tmp_path / "activation_scaler.json").write_text(json.dumps({"scaling_factor": scale, "has_whitening": False}))
    imported = saelens.read(saelens_folder(tmp_path, config | {"architecture": "jumprelu"}, t))
    pre_TF = pre(scale * tokens(), t)
    check(imported, pre_TF.relu() * (pre_TF > t["threshold"]), t["W_dec"], t["b_dec"], scale=scale)


def test_half_precision_weights_are_read_as_what_they_are(tmp_path: Path) -> None:
    t = {name: tensor.bfloat16() for name, tensor in saelens_tensors().items()}
    imported = saelens.read(saelens_folder(tmp_path, saelens_config(dtype="bfloat16"), t))
    wide = {name: tensor.float() for name, tensor in t.items()}
    check(imported, pre(tokens(), wide).relu(), wide["W_dec"], wide["b_dec"])


@pytest.mark.parametrize(
    ("hook", "site"),
    [
        ("blocks.3.hook_resid_post", "blocks.3.resid_post"),
        ("blocks.3.hook_resid_pre", "blocks.2.resid_post"),
        ("blocks.0.hook_resid_pre", None),
        ("blocks.3.hook_mlp_out", "blocks.3.mlp_out"),
        ("blocks.3.hook_attn_out", "blocks.3.attn_out"),
        ("blocks.3.mlp.hook_post", "blocks.3.mlp_hidden"),
        ("blocks.3.attn.hook_z", None),
        ("", None),
    ],
)
def test_hooks_of_transformer_lens_are_translated_or_have_no_site(hook: str, site: str | None) -> None:
    assert saelens.site_of(hook) == site
    if site is not None and "pre" not in hook:
        assert saelens.hook_of(site) == hook


# ── sparsify ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("length", [1.0, 2.5])
@pytest.mark.parametrize("transcode", [False, True])
def test_sparsify_computes_the_same_here(tmp_path: Path, transcode: bool, length: float) -> None:
    stored = sparsify_tensors()
    stored["W_dec"] = stored["W_dec"] * length
    folder = sparsify_folder(tmp_path / "layers.10", sparsify_config(transcode=transcode), stored)
    imported = sparsify.read(folder)
    t = stored | {"W_enc": stored["encoder.weight"].t(), "b_enc": stored["encoder.bias"]}
    f_TF = keep_k(pre(tokens(), t, b_dec=not transcode))
    sae = imported.canonical(format="test", site="blocks.9.resid_post", target_site=imported.target_site)
    torch.testing.assert_close(sae.encode(tokens()).dense(), f_TF * length, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sae.reconstruct(tokens()), f_TF @ t["W_dec"] + t["b_dec"], rtol=1e-4, atol=1e-4)
    expected = ("blocks.9.resid_post", "blocks.10.resid_post") if transcode else ("blocks.10.resid_post", None)
    assert (imported.site, imported.target_site) == expected


def test_without_num_latents_the_expansion_factor_decides(tmp_path: Path) -> None:
    config = sparsify_config(num_latents=0, expansion_factor=2)
    stored = {name: tensor[: 2 * D] for name, tensor in sparsify_tensors().items()}
    imported = sparsify.read(sparsify_folder(tmp_path / "layers.0.mlp", config, stored))
    assert imported.weights.W_enc.shape == (D, 2 * D)
    assert imported.site == "blocks.0.mlp_out"


@pytest.mark.parametrize(
    ("hookpoint", "site"),
    [
        ("layers.3", "blocks.3.resid_post"),
        ("h.3", "blocks.3.resid_post"),
        ("transformer.h.3.attn", "blocks.3.attn_out"),
        ("layers.3.self_attn", "blocks.3.attn_out"),
        ("layers.3.mlp.down_proj", None),
        ("embed_in", None),
    ],
)
def test_hookpoints_are_translated_or_have_no_site(hookpoint: str, site: str | None) -> None:
    assert sparsify.site_of(hookpoint) == site


# ── dictionary_learning and Gemma Scope ─────────────────────────────────────


@pytest.mark.parametrize("dict_class", CLASSES)
def test_dictionary_learning_computes_the_same_here(tmp_path: Path, dict_class: str) -> None:
    stored = dictionary_tensors(dict_class)
    imported = dictionary_learning.read(dictionary_folder(tmp_path, dictionary_config(dict_class), stored))
    t = saelens_tensors() | stored
    if "encoder.weight" in stored:
        t["W_enc"] = stored["encoder.weight"].t()
    # All of them hold the same b_dec under four names.
    pre_TF = pre(tokens(), t, b_dec=dict_class not in ("AutoEncoderNew", "JumpReluAutoEncoder"))
    f_TF = pre_TF.relu()
    match dict_class:
        case "GatedAutoEncoder":
            z_TF = pre_TF - t["b_enc"]
            f_TF = (z_TF + t["gate_bias"] > 0) * (z_TF * t["r_mag"].exp() + t["mag_bias"]).relu()
        case "AutoEncoderTopK":
            f_TF = keep_k(f_TF)
        case "BatchTopKSAE" | "MatryoshkaBatchTopKSAE" | "JumpReluAutoEncoder":
            f_TF = f_TF * (f_TF > t["threshold"])
    check(imported, f_TF, rows(unit=dict_class == "AutoEncoderTopK"), t["b_dec"])
    assert (imported.site, imported.model) == ("blocks.10.resid_post", "EleutherAI/pythia-70m")


def test_a_threshold_that_was_never_estimated_is_told(tmp_path: Path) -> None:
    stored = dictionary_tensors("BatchTopKSAE") | {"threshold": torch.tensor(-1.0)}
    imported = dictionary_learning.read(dictionary_folder(tmp_path, dictionary_config("BatchTopKSAE"), stored))
    assert "never estimated" in imported.notes[0]
    t = saelens_tensors() | {"W_enc": stored["encoder.weight"].t()}
    check(imported, pre(tokens(), t).relu(), t["W_dec"], t["b_dec"])


@pytest.mark.parametrize("names", ["W_enc", "w_enc"])
def test_gemma_scope_computes_the_same_here(tmp_path: Path, names: str) -> None:
    arrays = gemma_arrays()
    stored = {name.replace("W_", "w_") if names == "w_enc" else name: array for name, array in arrays.items()}
    imported = gemma_scope.read(gemma_folder(tmp_path, stored))
    t = {name: torch.from_numpy(array) for name, array in arrays.items()}
    pre_TF = pre(tokens(), t, b_dec=False)
    check(imported, pre_TF.relu() * (pre_TF > t["threshold"]), t["W_dec"], t["b_dec"])
    assert imported.site is None


# ── refusals ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "batchtopk"}, "save_inference_model"),
        ({"architecture": "skip_transcoder"}, "a transcoder"),
        ({"architecture": "abstopk"}, "negative"),
        ({"architecture": "unheard_of"}, "'standard', 'topk', 'jumprelu' or 'gated'"),
        ({"normalize_activations": "layer_norm"}, "its own norm"),
        ({"normalize_activations": "constant_norm_rescale"}, "its own norm"),
        ({"normalize_activations": "expected_average_only_in"}, "SAE.from_pretrained"),
        ({"reshape_activations": "hook_z"}, "no site"),
        ({"metadata": {"hook_head_index": 3}}, "hook_head_index"),
        ({"architecture": "topk"}, "k: a top-k SAE needs one"),
        ({"architecture": "topk", "k": F + 1}, "k: a top-k SAE needs one"),
        ({"d_in": D + 1}, rf"W_dec: is \[{F}, {D}\], not \[{F}, {D + 1}\]"),
        ({"architecture": "jumprelu"}, "threshold: missing"),
        ({"d_sae": "many"}, r"d_sae: .*got 'many'"),
    ],
)
def test_saelens_settings_that_cannot_be_held_are_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    folder = saelens_folder(tmp_path, saelens_config() | changes, saelens_tensors())
    with pytest.raises(ForeignFormat, match=words):
        saelens.read(folder)


def test_a_folder_of_saelens_5_is_refused(tmp_path: Path) -> None:
    config = {key: value for key, value in saelens_config().items() if key != "metadata"}
    with pytest.raises(ForeignFormat, match="metadata: missing"):
        saelens.read(saelens_folder(tmp_path, config, saelens_tensors()))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activation": "groupmax"}, "each of k groups"),
        ({"skip_connection": True}, "W_skip leads past"),
        ({"signed": True}, "negative"),
        ({"k": F + 1}, "k: must be at most"),
        ({"num_latents": 7}, r"is \[50, 12\], not \[7, 12\]"),
    ],
)
def test_sparsify_settings_that_cannot_be_held_are_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ForeignFormat, match=words):
        sparsify.read(sparsify_folder(tmp_path, sparsify_config(**changes), sparsify_tensors()))


def test_a_topk_of_pre_activations_over_rows_of_different_length_is_refused(tmp_path: Path) -> None:
    stored = sparsify_tensors() | {"W_dec": rows(unit=False)}
    imported = sparsify.read(sparsify_folder(tmp_path, sparsify_config(), stored))
    with pytest.raises(ForeignFormat, match=r"rows are 0\.3 to 3 long"):
        imported.canonical(format="test", site="blocks.1.resid_post")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dict_class": "IdentityDict"}, "dict_class"),
        ({"activation_dim": 99}, "activation_dim: is 99, and the encoder in ae.pt has 12"),
        ({"k": K + 1}, f"trainer.k: is {K + 1}, and k in ae.pt is {K}"),
    ],
)
def test_dictionary_learning_settings_that_cannot_be_held_are_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    config = dictionary_config("AutoEncoderTopK", **changes)
    with pytest.raises(ForeignFormat, match=words):
        dictionary_learning.read(dictionary_folder(tmp_path, config, dictionary_tensors("AutoEncoderTopK")))


class Bomb:
    """Leaves a mark when somebody unpickles it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.mark,)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists(), "the bomb works"
    mark.unlink()
    config, state = dictionary_config("AutoEncoder"), dictionary_tensors("AutoEncoder") | {"more": Bomb(mark)}
    with pytest.raises(ForeignFormat, match=r"ae\.pt: .*unpickling"):
        dictionary_learning.read(dictionary_folder(tmp_path / "zip", config, state))
    bare = dictionary_folder(tmp_path / "bare", config, {})
    (bare / "ae.pt").write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(ForeignFormat, match=r"ae\.pt: .*unpickling"):
        dictionary_learning.read(bare)
    arrays = gemma_arrays() | {"b_enc": np.array([Bomb(mark)], dtype=object)}
    with pytest.raises(ForeignFormat, match=r"params\.npz: b_enc: .*unpickling"):
        gemma_scope.read(gemma_folder(tmp_path / "npz", arrays))
    assert not mark.exists()


READERS: dict[Format, Callable[[Path], Imported]] = {
    Format.SAELENS: saelens.read,
    Format.SPARSIFY: sparsify.read,
    Format.DICTIONARY_LEARNING: dictionary_learning.read,
    Format.GEMMA_SCOPE: gemma_scope.read,
}


def whole_folder(format: Format, folder: Path) -> Path:
    match format:
        case Format.SAELENS:
            return saelens_folder(folder, saelens_config(), saelens_tensors())
        case Format.SPARSIFY:
            return sparsify_folder(folder, sparsify_config(), sparsify_tensors())
        case Format.DICTIONARY_LEARNING:
            return dictionary_folder(folder, dictionary_config("BatchTopKSAE"), dictionary_tensors("BatchTopKSAE"))
        case Format.GEMMA_SCOPE:
            return gemma_folder(folder, gemma_arrays())


@pytest.mark.parametrize("format", Format)
def test_a_folder_is_known_by_its_files_and_reads_as_nothing_else(tmp_path: Path, format: Format) -> None:
    folder = whole_folder(format, tmp_path / "layers.10")
    assert looks_like(folder) == format
    READERS[format](folder)
    for other in set(Format) - {format}:
        with pytest.raises(ForeignFormat):
            READERS[other](folder)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_changed_byte_does_it_is_read_or_refused_and_nothing_else(
    tmp_path: Path, data: st.DataObject
) -> None:
    format = data.draw(st.sampled_from(list(Format)), label="format")
    folder = whole_folder(format, tmp_path / "layers.10")
    path = folder / data.draw(st.sampled_from(FILES[format]), label="file")
    good = path.read_bytes()
    # Headers and tables of contents stand at either end; what lies between is mostly numbers.
    near = data.draw(st.integers(0, min(700, len(good)) - 1), label="distance from an end")
    at = near if data.draw(st.booleans(), label="from the start") else len(good) - 1 - near
    flipped = bytes([good[at] ^ data.draw(st.integers(1, 255), label="flip")])
    path.write_bytes(good[:at] + flipped + good[at + 1 :])
    with contextlib.suppress(ForeignFormat):
        READERS[format](folder)


@pytest.mark.parametrize("format", Format)
@pytest.mark.parametrize("how", ["gone", "empty", "garbage", "cut"])
def test_files_that_are_missing_or_torn_are_named(tmp_path: Path, format: Format, how: str) -> None:
    for name in FILES[format]:
        folder = whole_folder(format, tmp_path / name / "layers.10")
        whole = (folder / name).read_bytes()
        damaged = {"empty": b"", "garbage": b"\x80\x04 not what it was", "cut": whole[: len(whole) // 2]}
        if how == "gone":
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(damaged[how])
        with pytest.raises(ForeignFormat, match=name):
            READERS[format](folder)


def test_all_faults_of_a_folder_are_told_at_once(tmp_path: Path) -> None:
    t = saelens_tensors()
    t["b_enc"][3] = float("nan")
    t["W_skip"] = torch.zeros(D, D)
    del t["b_dec"]
    with pytest.raises(ForeignFormat) as caught:
        saelens.read(saelens_folder(tmp_path, saelens_config(architecture="topk"), t))
    assert [where for where, _ in caught.value.faults] == [
        "cfg.json: k",
        "sae_weights.safetensors: W_skip",
        "sae_weights.safetensors: b_dec",
        "sae_weights.safetensors: b_enc",
    ]
    assert "NaN" in str(caught.value)


def test_integers_are_no_weights(tmp_path: Path) -> None:
    t = saelens_tensors() | {"W_enc": torch.ones(D, F, dtype=torch.int8)}
    with pytest.raises(ForeignFormat, match=r"W_enc: is torch\.int8"):
        saelens.read(saelens_folder(tmp_path, saelens_config(), t))
