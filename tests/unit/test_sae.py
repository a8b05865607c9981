"""The canonical SAE: encode, decode, folding, and the files it lives in."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from saeops.errors import FolderDamaged, StageMissing
from saeops.sae.canonical import META, WEIGHTS, Sae, SaeMeta
from saeops.sae.folding import Scaling, fold, unfold
from saeops.sae.trainable import Weights

D, F = 12, 50


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def meta(k: int | None, *, apply_b_dec_to_input: bool = True) -> SaeMeta:
    return SaeMeta(
        variant="topk",
        site="blocks.1.resid_post",
        d_model=D,
        d_sae=F,
        k=k,
        apply_b_dec_to_input=apply_b_dec_to_input,
    )


def folded(weights: Weights, meta: SaeMeta, mean: Tensor, scale: float) -> Sae:
    """An autoencoder's fold: one scaling on both sides."""
    return fold(weights, meta, input=Scaling(mean, scale), target=Scaling(mean, scale))


def trained(*, threshold: bool = False) -> Weights:
    """Weights with decoder rows of every length, as a variant without a norm constraint leaves them."""
    lengths = torch.linspace(0.2, 4, F)[:, None]
    rows = torch.nn.functional.normalize(draw(1, F, D), dim=1) * lengths
    level = draw(5, F).abs() + 0.1 if threshold else None
    return Weights(draw(2, F, D), draw(3, F), rows, draw(4, D), level)


def canonical(k: int | None = 4) -> Sae:
    return folded(trained(), meta(k), torch.zeros(D), 1.0)


def dense_forward(weights: Weights, x_TD: Tensor) -> tuple[Tensor, Tensor]:
    """Latents and reconstruction of weights as trained: ReLU, or JumpReLU where there is a threshold."""
    pre_TF = x_TD @ weights.W_enc_FD.t() + weights.b_enc
    level = weights.threshold if weights.threshold is not None else torch.zeros(F)
    f_TF = pre_TF * (pre_TF > level)
    return f_TF, f_TF @ weights.W_dec_FE + weights.b_dec


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("threshold", [False, True])
def test_norm_folding_reaches_the_threshold(threshold: bool, applied: bool) -> None:
    weights, mean, scale = trained(threshold=threshold), 5 * draw(6, D), 0.04
    raw_TD = mean + draw(7, 200, D) / scale
    f_TF, x_hat_TD = dense_forward(weights, (raw_TD - mean) * scale)
    sae = folded(weights, meta(None, apply_b_dec_to_input=applied), mean, scale)
    folded_TF = sae.encode(raw_TD).dense()
    assert torch.equal((folded_TF > 0).sum(1), (f_TF > 0).sum(1))
    torch.testing.assert_close(folded_TF * scale, f_TF * weights.W_dec_FE.norm(dim=1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close((sae.reconstruct(raw_TD) - mean) * scale, x_hat_TD, rtol=1e-4, atol=1e-4)


def test_folding_keeps_the_latents_that_topk_keeps() -> None:
    weights, mean, scale = trained(), 5 * draw(6, D), 0.04
    unit = Weights(
        weights.W_enc_FD, weights.b_enc, torch.nn.functional.normalize(weights.W_dec_FE, dim=1), weights.b_dec
    )
    raw_TD = mean + draw(7, 200, D) / scale
    before = folded(unit, meta(4), torch.zeros(D), 1.0).encode((raw_TD - mean) * scale)
    after = folded(unit, meta(4), mean, scale).encode(raw_TD)
    assert torch.equal(before.latent, after.latent)
    assert torch.equal(before.offsets, after.offsets)
    torch.testing.assert_close(after.value * scale, before.value, rtol=1e-4, atol=1e-4)


def test_a_transcoder_is_folded_with_each_side_s_own_scaling() -> None:
    weights = trained(threshold=True)
    out = Weights(weights.W_enc_FD, weights.b_enc, draw(9, F, 7), draw(10, 7), weights.threshold)
    source, target = Scaling(5 * draw(6, D), 0.04), Scaling(draw(11, 7), 3.0)
    sae = fold(out, meta(None, apply_b_dec_to_input=False), input=source, target=target)
    raw_TD = source.mean + draw(7, 200, D) / source.scale
    pre_TF = (raw_TD - source.mean) * source.scale @ out.W_enc_FD.t() + out.b_enc
    expected = (pre_TF * (pre_TF > out.threshold)) @ out.W_dec_FE + out.b_dec
    y_hat = sae.decode(sae.encode(raw_TD))
    torch.testing.assert_close((y_hat - target.mean) * target.scale, expected, rtol=1e-4, atol=1e-3)


def test_folding_leaves_unit_rows_even_where_a_row_was_zero() -> None:
    weights = trained()
    weights.W_dec_FE[3] = 0
    sae = folded(weights, meta(None), torch.zeros(D), 1.0)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(F))
    assert 3 not in sae.encode(draw(7, 500, D)).latent


def test_topk_keeps_at_most_k_and_only_positive_values() -> None:
    sae = canonical(k=4)
    codes = sae.encode(draw(7, 300, D))
    pre_TF = sae.pre(draw(7, 300, D))
    expected = torch.zeros_like(pre_TF).scatter(1, pre_TF.topk(4).indices, pre_TF.topk(4).values).clamp(min=0)
    torch.testing.assert_close(codes.dense(), expected)
    assert int(codes.l0().max()) <= 4


def test_encoding_in_chunks_changes_nothing() -> None:
    sae, x_TD = canonical(), draw(7, 1200, D)
    whole, first, rest = sae.encode(x_TD), sae.encode(x_TD[:700]), sae.encode(x_TD[700:])
    assert torch.equal(whole.latent, torch.cat([first.latent, rest.latent]))
    assert whole.tokens == 1200


def test_no_tokens_and_no_latents_are_no_special_cases() -> None:
    sae = canonical()
    assert sae.reconstruct(torch.zeros(0, D)).shape == (0, D)
    silent = Sae.of({**sae.tensors(), "b_enc": torch.full((F,), -1e6)}, sae.meta)
    assert torch.equal(silent.reconstruct(draw(7, 3, D)), sae.b_dec.expand(3, D))


def test_a_bias_that_is_not_applied_to_the_input_is_left_out() -> None:
    sae = canonical()
    other = Sae.of(sae.tensors(), sae.meta.model_copy(update={"apply_b_dec_to_input": False}))
    x_TD = draw(7, 20, D)
    torch.testing.assert_close(other.pre(x_TD - sae.b_dec), sae.pre(x_TD))


def test_half_precision_activations_are_encoded_in_fp32() -> None:
    sae, x_TD = canonical(), draw(7, 20, D).half()
    codes = sae.encode(x_TD)
    assert codes.value.dtype == torch.float32
    assert torch.equal(codes.value, sae.encode(x_TD.float()).value)


def test_save_and_load_give_the_same_bits(tmp_path: Path) -> None:
    sae = folded(trained(threshold=True), meta(None), draw(8, D), 0.3)
    sae.save(tmp_path / "a")
    loaded = Sae.load(tmp_path / "a")
    assert loaded.meta == sae.meta
    assert all(torch.equal(loaded.tensors()[name], tensor) for name, tensor in sae.tensors().items())
    loaded.save(tmp_path / "b")
    for name in (WEIGHTS, META):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_missing_sae_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(StageMissing, match="saeops train"):
        Sae.load(tmp_path)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda t: t.pop("b_enc"), "an SAE has"),
        (lambda t: t.update(extra=torch.zeros(1)), "an SAE has"),
        (lambda t: t.update(b_dec=torch.zeros(D + 1)), r"b_dec is torch.float32 \[13\]"),
        (lambda t: t.update(W_enc=t["W_enc"].half()), "W_enc is torch.float16"),
        (lambda t: t["b_enc"].fill_(float("nan")), "b_enc holds NaN"),
        (lambda t: t["W_dec"].mul_(2), "away from unit norm"),
    ],
)
def test_weights_that_are_not_an_sae_are_refused(tmp_path: Path, fault: object, message: str) -> None:
    canonical().save(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    fault(tensors)  # type: ignore[operator]
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(FolderDamaged, match=message):
        Sae.load(tmp_path)


@pytest.mark.parametrize("name", [WEIGHTS, META])
def test_files_that_cannot_be_read_are_refused(tmp_path: Path, name: str) -> None:
    canonical().save(tmp_path)
    (tmp_path / name).write_bytes(b"\x80\x04 not what it was")
    with pytest.raises(FolderDamaged):
        Sae.load(tmp_path)


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("threshold", [False, True])
def test_an_unfolded_sae_folds_into_itself_under_any_scaling(threshold: bool, applied: bool) -> None:
    sae = folded(trained(threshold=threshold), meta(None, apply_b_dec_to_input=applied), 5 * draw(6, D), 0.04)
    scaling = Scaling(3 * draw(8, D), 1.7)
    again = fold(unfold(sae, input=scaling, target=scaling), sae.meta, input=scaling, target=scaling)
    for name, tensor in sae.tensors().items():
        torch.testing.assert_close(again.tensors()[name], tensor, rtol=1e-4, atol=1e-4)
