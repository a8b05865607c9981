"""Out to another library's files and back: the same codes and reconstructions, whatever the SAE.

# T token, D d_model, F latent
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from saeops.errors import ForeignFormat
from saeops.sae.canonical import Sae, SaeMeta
from saeops.sae.formats import dictionary_learning, saelens, sparsify
from saeops.sae.formats.folding import ForeignWeights, Imported, fold, with_b_dec_on_input

seeds = st.integers(0, 2**31)
SITE = "blocks.3.mlp_out"

MODULES = {"saelens": saelens, "sparsify": sparsify, "dictionary_learning": dictionary_learning}


def gaussian(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@st.composite
def saes(draw: st.DrawFn) -> Sae:
    """Top-k, thresholds or plain ReLU; b_dec on the input or not; any shape."""
    seed, D, F = draw(seeds), draw(st.integers(1, 9)), draw(st.integers(1, 40))
    kind = draw(st.sampled_from(["topk", "threshold", "relu"]))
    tensors = {
        "W_enc": gaussian(seed, D, F),
        "b_enc": gaussian(seed + 1, F),
        "W_dec": torch.nn.functional.normalize(gaussian(seed + 2, F, D), dim=1),
        "b_dec": 3 * gaussian(seed + 3, D),
    }
    if kind == "threshold":
        tensors["threshold"] = gaussian(seed + 4, F).abs()
    meta = SaeMeta(
        variant="any",
        site=SITE,
        d_model=D,
        d_sae=F,
        k=draw(st.integers(1, F)) if kind == "topk" else None,
        apply_b_dec_to_input=draw(st.booleans()),
    )
    return Sae.of(tensors, meta)


def there_and_back(format: str, sae: Sae) -> Imported:
    module = MODULES[format]
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, data in module.files_of(sae).items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            paths.append(path)
        return module.read(paths[0].parent)


@given(sae=saes(), format=st.sampled_from(sorted(MODULES)), seed=seeds)
def test_out_and_back_gives_the_same_codes_and_reconstructions(sae: Sae, format: str, seed: int) -> None:
    assume(format != "sparsify" or sae.k is not None)
    imported = there_and_back(format, sae)
    assert imported.site == SITE
    back = imported.canonical(format=format, site=SITE)
    x_TD = gaussian(seed, 20, sae.meta.d_model) + sae.b_dec
    assume(not near_a_border(sae, x_TD))
    ours, theirs = sae.encode(x_TD), back.encode(x_TD)
    assert torch.equal(ours.latent, theirs.latent)
    assert torch.equal(ours.offsets, theirs.offsets)
    torch.testing.assert_close(theirs.value, ours.value, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(back.decode(theirs), sae.decode(ours), rtol=1e-4, atol=1e-4)
    if imported.weights.apply_b_dec_to_input == sae.meta.apply_b_dec_to_input:
        for name, tensor in sae.tensors().items():
            assert torch.equal(back.tensors()[name], tensor), name


def near_a_border(sae: Sae, x_TD: Tensor) -> bool:
    """Where rounding may decide which latents fire."""
    pre_TF = sae.pre(x_TD)
    if sae.k is not None and sae.k < sae.meta.d_sae:
        top_TK = pre_TF.relu().topk(sae.k + 1, dim=1).values
        gap = top_TK[:, -2] - top_TK[:, -1]
        if bool(((gap < 1e-4) & (top_TK[:, -2] > 0)).any()):
            return True
    level = 0 if sae.threshold is None else sae.threshold
    return bool(((pre_TF - level).abs() < 1e-4).any())


@given(sae=saes())
def test_equal_saes_give_equal_files(sae: Sae) -> None:
    assert saelens.files_of(sae) == saelens.files_of(Sae.of(dict(sae.tensors()), sae.meta))


@given(sae=saes(), seed=seeds, wanted=st.booleans())
def test_moving_b_dec_on_or_off_the_input_changes_no_pre_activation(sae: Sae, seed: int, wanted: bool) -> None:
    moved = with_b_dec_on_input(sae, wanted=wanted)
    assert moved.meta.apply_b_dec_to_input == wanted
    x_TD = gaussian(seed, 20, sae.meta.d_model)
    torch.testing.assert_close(moved.pre(x_TD), sae.pre(x_TD), rtol=1e-4, atol=1e-4)


@given(
    sae=saes(),
    seed=seeds,
    scale=st.floats(0.01, 100),
    lengths=st.sampled_from(["any", "one"]),
    by_length=st.booleans(),
)
def test_folding_keeps_every_latent_and_reconstruction(
    sae: Sae, seed: int, scale: float, lengths: str, by_length: bool
) -> None:
    """Weights undone by row lengths and an input scale come back by folding them."""
    assume(sae.k is None or by_length or lengths == "one")
    length = torch.rand(sae.meta.d_sae, generator=torch.Generator().manual_seed(seed)) * 3 + 0.2
    length = length if lengths == "any" else torch.full_like(length, 2.5)
    undone = ForeignWeights(
        W_enc=sae.W_enc / (length * scale) * scale,
        b_enc=sae.b_enc / length,
        W_dec=sae.W_dec * length[:, None],
        b_dec=sae.b_dec,
        threshold=None if sae.threshold is None else sae.threshold / length,
        k=sae.k,
        apply_b_dec_to_input=sae.meta.apply_b_dec_to_input,
        selects_by_length=by_length,
    )
    folded = fold(undone)
    for name, tensor in sae.tensors().items():
        torch.testing.assert_close(folded[name], tensor, rtol=1e-4, atol=1e-5)
    scaled = ForeignWeights(**{**vars(undone), "input_scale": scale})
    x_TD = gaussian(seed, 20, sae.meta.d_model)
    wide = Sae.of(fold(scaled), sae.meta)
    # act(s·x …) / s and (f W + b) / s, as the library would compute them around its own weights.
    raw = Sae.of(folded, sae.meta)
    assume(not near_a_border(raw, scale * x_TD))
    torch.testing.assert_close(
        wide.encode(x_TD).dense() * scale, raw.encode(scale * x_TD).dense(), rtol=1e-3, atol=1e-3
    )
    torch.testing.assert_close(wide.reconstruct(x_TD) * scale, raw.reconstruct(scale * x_TD), rtol=1e-3, atol=1e-3)


@given(seed=seeds, spread=st.floats(1.001, 10))
def test_a_topk_that_does_not_see_row_lengths_is_never_folded_over_different_ones(
    seed: int, spread: float
) -> None:
    rows = torch.nn.functional.normalize(gaussian(seed, 6, 4), dim=1) * torch.linspace(1, spread, 6)[:, None]
    weights = ForeignWeights(gaussian(seed, 4, 6), torch.zeros(6), rows, torch.zeros(4), k=2)
    with pytest.raises(ForeignFormat, match="W_dec"):
        fold(weights)
    assert (
        fold(ForeignWeights(**{**vars(weights), "selects_by_length": True}))["W_dec"]
        .norm(dim=1)
        .allclose(torch.ones(6))
    )


def refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ForeignFormat, match=words):
        make()


@given(sae=saes())
def test_what_a_library_cannot_hold_is_not_written(sae: Sae) -> None:
    if sae.k is None:
        refused(lambda: sparsify.files_of(sae), "top-k SAEs only")
    update = {"site": "blocks.3.mlp_hidden"}
    inner = Sae.of(sae.tensors(), sae.meta.model_copy(update=update))
    refused(lambda: sparsify.files_of(inner), "is an input")
    update = {"target_site": "blocks.4.resid_post", "apply_b_dec_to_input": False}
    transcoder = Sae.of(sae.tensors(), sae.meta.model_copy(update=update))
    for module in MODULES.values():
        refused(lambda module=module: module.files_of(transcoder), "a transcoder")  # type: ignore[misc]
