"""Variants as trained and as used: folding, thresholds, dead latents, and how training starts."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from saeops.sae.canonical import Sae, SaeMeta
from saeops.sae.folding import fold
from saeops.sae.jumprelu import JumpReLUSae
from saeops.sae.variants import (
    BatchTopK,
    Gated,
    JumpReLU,
    Matryoshka,
    PenalisedL0,
    TargetL0,
    TopK,
    Variant,
)
from saeops.training.checkpoint import CheckpointFolder
from saeops.training.loop import train
from saeops.training.state import TrainState
from tests.planted import fresh, plant, short_config

DATA = plant(n_features=24, d_model=16, tokens=2048, active=3)
THRESHOLDED: list[Variant] = [
    BatchTopK(k=3),
    JumpReLU(sparsity=TargetL0(target=3), bandwidth=0.05),
    Gated(l1_coefficient=1.0, first_l0=3),
    Matryoshka(k=3),
]


def trained(variant: Variant, folder: Path, *, steps: int = 60) -> TrainState:
    state = fresh(variant, DATA, d_sae=64)
    config = short_config(tokens=64 * steps, lr=1e-2)
    for _ in train(state, DATA.batches(64), config=config, checkpoints=CheckpointFolder(folder, keep=1)):
        pass
    return state


def folded(state: TrainState, variant: Variant) -> Sae:
    meta = SaeMeta(variant=variant.variant, site="blocks.1.resid_post", d_model=16, d_sae=64)
    return fold(state.sae.weights(), meta, input=state.reading, target=state.normalisation.target)


def codes_by_the_book(state: TrainState, x_TD: Tensor) -> Tensor:
    """What each variant's own definition gives on normalised activations, densely."""
    parameters = dict(state.sae.named_parameters()) | dict(state.sae.named_buffers())
    pre_TF = x_TD @ parameters["W_enc_FD"].t() + parameters["b_enc"]
    if "log_threshold" in parameters:
        return pre_TF * (pre_TF > parameters["log_threshold"].exp())
    if "r_mag" in parameters:
        magnitude_TF = (pre_TF - parameters["b_enc"]) * parameters["r_mag"].exp() + parameters["b_mag"]
        return magnitude_TF.relu() * (pre_TF > 0)
    return pre_TF * (pre_TF > parameters["threshold"])


@pytest.mark.parametrize("variant", THRESHOLDED, ids=lambda v: v.variant)
def test_norm_folding_reaches_the_threshold(variant: Variant, tmp_path: Path) -> None:
    state = trained(variant, tmp_path)
    with torch.no_grad():
        f_TF = codes_by_the_book(state, state.reading.apply(DATA.x))
    sae = folded(state, variant)
    used_TF = sae.encode(DATA.x).dense()
    assert 0.5 < float((f_TF > 0).float().sum(1).mean()) < 20
    # Rounding may tip a latent that stands within a few parts in a million of its threshold.
    assert int(((used_TF > 0) != (f_TF > 0)).sum()) <= 2
    both_TF = (used_TF > 0) & (f_TF > 0)
    scaled_TF = used_TF * state.normalisation.input.scale
    torch.testing.assert_close(scaled_TF[both_TF], f_TF[both_TF], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", [BatchTopK(k=3), Matryoshka(k=3)], ids=lambda v: v.variant)
def test_a_token_alone_has_about_as_many_latents_as_in_its_batch(variant: Variant, tmp_path: Path) -> None:
    sae = folded(trained(variant, tmp_path), variant)
    assert 2.5 < len(sae.encode(DATA.x).value) / len(DATA.x) < 3.5


@pytest.mark.parametrize("variant", THRESHOLDED, ids=lambda v: v.variant)
def test_thresholds_stay_fp32_on_half_precision_data(variant: Variant, tmp_path: Path) -> None:
    state = fresh(variant, DATA, d_sae=64)
    half = type(DATA)(DATA.directions, DATA.x.half())
    checkpoints = CheckpointFolder(tmp_path, keep=1)
    for _ in train(state, half.batches(64), config=short_config(tokens=64 * 3), checkpoints=checkpoints):
        pass
    assert {tensor.dtype for tensor in state.sae.state_dict().values()} == {torch.float32}
    weights = state.sae.weights()
    assert weights.threshold is not None
    assert weights.threshold.dtype == torch.float32


@pytest.mark.parametrize("variant", [TopK(k=3), BatchTopK(k=3), Matryoshka(k=3)], ids=lambda v: v.variant)
def test_auxk_reaches_a_dead_encoder_row(variant: Variant) -> None:
    state = fresh(variant, DATA, d_sae=64)
    with torch.no_grad():
        state.sae.b_enc[:20] = -50
    x_TD = state.normalisation.input.apply(DATA.x[:64])
    dead = torch.arange(64) < 20
    for is_dead in (torch.zeros_like(dead), dead):
        state.optimiser.clear()
        state.sae.outcome(x_TD, x_TD, dead=is_dead, progress=0.5).loss.backward()
        assert state.sae.W_enc_FD.grad is not None
        reached = int((state.sae.W_enc_FD.grad.to_dense()[:20].norm(dim=1) > 0).sum())
        # At most d_model / 2 compete on a token, others on others.
        assert reached >= 8 if is_dead.any() else reached == 0


@pytest.mark.parametrize(
    "variant",
    [
        JumpReLU(sparsity=TargetL0(target=4)),
        JumpReLU(sparsity=PenalisedL0(first_l0=4)),
        Gated(first_l0=4),
    ],
    ids=["jumprelu with a target", "jumprelu with a penalty", "gated"],
)
def test_training_starts_at_the_l0_that_was_asked_for(variant: Variant) -> None:
    state = fresh(variant, DATA, d_sae=64)
    x_TD = state.normalisation.input.apply(DATA.x)
    outcome = state.sae.outcome(x_TD, x_TD, dead=torch.zeros(64, dtype=torch.bool), progress=0)
    assert 3.5 < float(outcome.l0) < 4.5


def test_a_target_l0_is_reached_and_held(tmp_path: Path) -> None:
    state = trained(JumpReLU(sparsity=TargetL0(target=5), bandwidth=0.05), tmp_path, steps=200)
    assert isinstance(state.sae, JumpReLUSae)
    assert 4 < state.curve[-1].l0 < 6


def test_a_matryoshka_s_first_prefix_says_more_alone_than_as_many_latents_of_a_batch_topk(tmp_path: Path) -> None:
    """What the nested losses are for."""

    def missed(variant: Variant) -> float:
        state = trained(variant, tmp_path / variant.variant, steps=150)
        weights, x_TD = state.sae.weights(), state.normalisation.input.apply(DATA.x)
        with torch.no_grad():
            f_TF = codes_by_the_book(state, state.reading.apply(DATA.x))[:, :16]
            return float((x_TD - f_TF @ weights.W_dec_FE[:16] - weights.b_dec).square().mean())

    assert missed(Matryoshka(k=3, prefixes=(0.25, 1.0))) < 0.8 * missed(BatchTopK(k=3))
