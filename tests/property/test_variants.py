"""Every variant against its dense reference in float64: the same loss, and the same gradient everywhere."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from saeops.sae import reference
from saeops.sae.dense import few_fire
from saeops.sae.gated import GatedSae
from saeops.sae.jumprelu import JumpReLUSae
from saeops.sae.trainable import Shape, TrainableSae, Weights
from saeops.sae.variants import (
    MULTI,
    BatchTopK,
    Gated,
    JumpReLU,
    Matryoshka,
    PenalisedL0,
    ReluL1,
    TargetL0,
    TopK,
)
from tests.draws import gaussian, perturbed, seeds

tokens, latents = st.integers(1, 40), st.integers(4, 60)
shapes = st.builds(
    lambda d_in, d_out, d_sae: Shape(d_in, d_sae, d_out or d_in, transcodes=d_out is not None),
    st.integers(2, 12),
    st.none() | st.integers(2, 12),
    latents,
)
biases = st.sampled_from([0.0, -3.0])
"""The second leaves so few latents to fire that products run over entries."""


def pair(seed: int, n_tokens: int, shape: Shape) -> tuple[Tensor, Tensor]:
    """Inputs that take a gradient, and targets that pass none on to them."""
    x_TD = gaussian(seed + 100, n_tokens, shape.d_in).requires_grad_()
    return x_TD, gaussian(seed + 101, n_tokens, shape.d_out) if shape.transcodes else x_TD.detach().clone()


def weights_of(sae: TrainableSae) -> Weights:
    """With gradient, unlike `sae.weights()`."""
    return Weights(sae.W_enc_FD, sae.b_enc, sae.W_dec_FE, sae.b_dec)


def alive(sae: TrainableSae) -> Tensor:
    return torch.zeros(len(sae.b_enc), dtype=torch.bool)


def assert_same(sae: TrainableSae, x_TD: Tensor, fast: Tensor, plain: Tensor) -> None:
    """In value, and in the gradient of every parameter; the centre's is that of the inputs, turned round."""
    torch.testing.assert_close(fast, plain)
    parameters = dict(sae.named_parameters())
    fast.backward()
    sae.learn_centre()
    mine = {name: p.grad for name, p in parameters.items()}
    sae.zero_grad(set_to_none=True)
    plain.backward()
    if x_TD.grad is None:
        sae.learn_centre()
    else:
        sae.centre.grad = -x_TD.grad.sum(0)
    for name, parameter in parameters.items():
        torch.testing.assert_close(
            mine[name], parameter.grad, rtol=1e-6, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


def assert_same_firing(outcome: object, f_TF: Tensor) -> None:
    assert torch.equal(outcome.fired, (f_TF > 0).any(0))
    torch.testing.assert_close(float(outcome.l0), float((f_TF > 0).double().sum(1).mean()))


def with_auxk(
    plain: reference.Reference, sae: TrainableSae, x_TD: Tensor, y_TE: Tensor, dead: Tensor, aux_k: int
) -> Tensor:
    residual_TE = (y_TE - plain.y_hat).detach()
    if not dead.any() or len(x_TD) == 1:
        return plain.loss
    return plain.loss + 0.7 * reference.auxk(x_TD, residual_TE, weights_of(sae), dead=dead, aux_k=aux_k)


@given(
    seed=seeds,
    shape=shapes,
    n_tokens=st.integers(2, 40),
    k=st.integers(1, 4),
    multi=st.sampled_from([0.0, 0.3]),
    share_dead=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    aux_k=st.integers(1, 8),
)
def test_topk_equals_its_reference(
    seed: int, shape: Shape, n_tokens: int, k: int, multi: float, share_dead: float, aux_k: int
) -> None:
    sae = perturbed(TopK(k=k, aux_k=aux_k, aux_coefficient=0.7, multi_coefficient=multi), shape, seed)
    x_TD, y_TE = pair(seed, n_tokens, shape)
    dead = gaussian(seed + 7, shape.d_sae).sigmoid() < share_dead
    fast = sae.outcome(x_TD.detach(), y_TE, dead=dead, progress=1.0)
    plain = reference.topk(x_TD, y_TE, weights_of(sae), k=k, multi_coefficient=multi)
    assert_same(sae, x_TD, fast.loss, with_auxk(plain, sae, x_TD, y_TE, dead, aux_k))
    assert_same_firing(fast, plain.f)
    assert MULTI == 4


@given(
    seed=seeds,
    shape=shapes,
    n_tokens=st.integers(2, 40),
    k=st.integers(1, 4),
    share_dead=st.sampled_from([0.0, 0.5, 1.0]),
    prefixes=st.sampled_from([None, (1.0,), (0.25, 0.6, 1.0)]),
)
def test_batch_topk_and_matryoshka_equal_their_references(
    seed: int, shape: Shape, n_tokens: int, k: int, share_dead: float, prefixes: tuple[float, ...] | None
) -> None:
    choices = {"k": k, "aux_k": 3, "aux_coefficient": 0.7}
    variant = Matryoshka(prefixes=prefixes, **choices) if prefixes else BatchTopK(**choices)
    sae = perturbed(variant, shape, seed)
    x_TD, y_TE = pair(seed, n_tokens, shape)
    dead = gaussian(seed + 7, shape.d_sae).sigmoid() < share_dead
    fast = sae.outcome(x_TD.detach(), y_TE, dead=dead, progress=1.0)
    if isinstance(variant, Matryoshka):
        plain = reference.matryoshka(x_TD, y_TE, weights_of(sae), k=k, sizes=variant.sizes(shape.d_sae))
    else:
        plain = reference.batch_topk(x_TD, y_TE, weights_of(sae), k=k)
    assert_same(sae, x_TD, fast.loss, with_auxk(plain, sae, x_TD, y_TE, dead, 3))
    assert_same_firing(fast, plain.f)
    torch.testing.assert_close(fast.mse, (y_TE - plain.y_hat).square().mean())


@given(seed=seeds, shape=shapes, n_tokens=tokens, bias=biases, penalised=st.booleans())
def test_jumprelu_equals_its_reference(
    seed: int, shape: Shape, n_tokens: int, bias: float, penalised: bool
) -> None:
    sparsity = PenalisedL0(coefficient=0.2) if penalised else TargetL0(target=1.5, coefficient=0.4)
    sae = perturbed(JumpReLU(sparsity=sparsity, bandwidth=0.3), shape, seed, bias=bias)
    assert isinstance(sae, JumpReLUSae)
    with torch.no_grad():
        sae.log_threshold.copy_(gaussian(seed + 8, shape.d_sae) - 0.7)
    x_TD, y_TE = pair(seed, n_tokens, shape)
    fast = sae.outcome(x_TD.detach(), y_TE, dead=alive(sae), progress=1.0)
    weights = replace(weights_of(sae), threshold=sae.log_threshold.exp())
    plain = reference.jumprelu(x_TD, y_TE, weights, bandwidth=0.3 * shape.d_in**0.5)
    price = 0.2 * plain.l0 if penalised else 0.4 * (plain.l0 / 1.5 - 1).square()
    assert_same(sae, x_TD, fast.loss, plain.reference.loss + price)
    assert_same_firing(fast, plain.reference.f)


@given(seed=seeds, shape=shapes, n_tokens=tokens, bias=biases, coefficient=st.floats(0, 10))
def test_gated_equals_its_reference(
    seed: int, shape: Shape, n_tokens: int, bias: float, coefficient: float
) -> None:
    sae = perturbed(Gated(l1_coefficient=coefficient), shape, seed, bias=bias)
    assert isinstance(sae, GatedSae)
    x_TD, y_TE = pair(seed, n_tokens, shape)
    fast = sae.outcome(x_TD.detach(), y_TE, dead=alive(sae), progress=1.0)
    plain = reference.gated(
        x_TD, y_TE, weights_of(sae), r_mag=sae.r_mag, b_mag=sae.b_mag, l1_coefficient=coefficient
    )
    assert_same(sae, x_TD, fast.loss, plain.loss)
    assert_same_firing(fast, plain.f)


@given(seed=seeds, shape=shapes, n_tokens=tokens, bias=biases, coefficient=st.floats(0, 10))
def test_relu_l1_equals_its_reference(
    seed: int, shape: Shape, n_tokens: int, bias: float, coefficient: float
) -> None:
    sae = perturbed(ReluL1(l1_coefficient=coefficient), shape, seed, bias=bias)
    x_TD, y_TE = pair(seed, n_tokens, shape)
    fast = sae.outcome(x_TD.detach(), y_TE, dead=alive(sae), progress=1.0)
    plain = reference.relu_l1(x_TD, y_TE, weights_of(sae), l1_coefficient=coefficient)
    assert_same(sae, x_TD, fast.loss, plain.loss)
    assert_same_firing(fast, plain.f)


@pytest.mark.parametrize("variant", [ReluL1(), Gated(), JumpReLU(sparsity=PenalisedL0())], ids=lambda v: v.variant)
def test_a_batch_of_several_dense_chunks_equals_its_halves(variant: ReluL1 | Gated | JumpReLU) -> None:
    shape = Shape(8, 40, 8)
    sae = perturbed(variant, shape, 3)
    x_TD, _ = pair(3, 1100, shape)
    assert not few_fire(x_TD, sae.W_enc_FD, sae.b_enc, 0.0)

    def loss(part_TD: Tensor) -> Tensor:
        return sae.outcome(part_TD.detach(), part_TD.detach(), dead=alive(sae), progress=1.0).loss

    # Each half fits one chunk, and the whole takes three.
    assert_same(sae, x_TD, loss(x_TD), (loss(x_TD[:550]) + loss(x_TD[550:])) / 2)


def test_a_low_bias_is_what_turns_dense_products_into_sparse_ones() -> None:
    """Else the properties above would hold one of the two ways only."""
    for bias, few in ((0.0, False), (-3.0, True)):
        sae = perturbed(ReluL1(), Shape(8, 40, 8), 3, bias=bias)
        assert few_fire(gaussian(1, 40, 8), sae.W_enc_FD, sae.b_enc, 0.0) == few
