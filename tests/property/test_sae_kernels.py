"""Fast kernels against brute force and dense autograd, in float64."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from saeops.sae import reference
from saeops.sae.build import build
from saeops.sae.codes import Codes
from saeops.sae.kernels import Pattern, encode_topk, topk
from saeops.sae.trainable import TrainableSae, Weights
from saeops.sae.variants import ReluL1, TopK

seeds = st.integers(0, 2**31)


def gaussian(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(seed=seeds, tokens=st.integers(1, 9), latents=st.integers(1, 700), data=st.data(), ties=st.booleans())
def test_topk_equals_brute_force_for_ties_and_odd_shapes(
    seed: int, tokens: int, latents: int, data: st.DataObject, ties: bool
) -> None:
    k = data.draw(st.integers(1, latents))
    pre_TF = gaussian(seed, tokens, latents)
    if ties:
        pre_TF = pre_TF.round()
    picked = topk(pre_TF, k)
    assert torch.equal(picked.value.sort(dim=1).values, pre_TF.sort(dim=1).values[:, -k:])
    assert torch.equal(pre_TF.gather(1, picked.latent), picked.value)
    assert all(len(set(row)) == k for row in picked.latent.tolist())


@given(seed=seeds, latents=st.integers(40, 200))
def test_encoding_in_chunks_equals_encoding_at_once(seed: int, latents: int) -> None:
    x_TD, W_FD, b_F = gaussian(seed, 1100, 4), gaussian(seed + 1, latents, 4), gaussian(seed + 2, latents)
    picked = encode_topk(x_TD, W_FD, b_F, 3)
    expected = (x_TD @ W_FD.t() + b_F).topk(3, dim=1)
    torch.testing.assert_close(picked.value.sort(dim=1, descending=True).values, expected.values)


def perturbed(sae: TrainableSae, seed: int) -> TrainableSae:
    """In float64, with every weight away from its start, biases included."""
    sae = sae.double()
    with torch.no_grad():
        for number, parameter in enumerate(sae.parameters()):
            parameter.add_(0.2 * gaussian(seed + number, *parameter.shape))
    return sae


def as_weights(sae: TrainableSae) -> Weights:
    return Weights(sae.W_enc_FD, sae.b_enc, sae.W_dec_FD, sae.b_dec)


def assert_same_gradients(sae: TrainableSae, fast: Tensor, plain: Tensor) -> None:
    torch.testing.assert_close(fast, plain)
    parameters = dict(sae.named_parameters())
    fast_grads = torch.autograd.grad(fast, list(parameters.values()))
    plain_grads = torch.autograd.grad(plain, list(parameters.values()))
    for name, mine, theirs in zip(parameters, fast_grads, plain_grads, strict=True):
        torch.testing.assert_close(mine, theirs, msg=lambda text, name=name: f"{name}: {text}")


@given(
    seed=seeds,
    tokens=st.integers(2, 40),
    width=st.integers(2, 12),
    latents=st.integers(4, 60),
    k=st.integers(1, 4),
    share_dead=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    aux_k=st.integers(1, 8),
)
def test_topk_equals_its_reference_forward_and_backward(
    seed: int, tokens: int, width: int, latents: int, k: int, share_dead: float, aux_k: int
) -> None:
    variant = TopK(k=k, aux_k=aux_k, aux_coefficient=0.7)
    generator = torch.Generator().manual_seed(seed)
    sae = perturbed(build(variant, d_model=width, d_sae=latents, generator=generator), seed)
    x_TD = gaussian(seed + 9, tokens, width)
    dead = torch.rand(latents, generator=generator) < share_dead
    fast = sae.outcome(x_TD, dead=dead, progress=1.0)
    plain = reference.topk(x_TD, as_weights(sae), k=k, dead=dead, aux_k=aux_k, aux_coefficient=0.7)
    assert_same_gradients(sae, fast.loss, plain.loss)
    assert torch.equal(fast.fired, (plain.f > 0).any(0))
    torch.testing.assert_close(fast.l0.double(), (plain.f > 0).double().sum(1).mean())


@given(
    seed=seeds,
    tokens=st.integers(1, 40),
    width=st.integers(1, 12),
    latents=st.integers(1, 60),
    coefficient=st.floats(0, 10),
)
def test_relu_l1_equals_its_reference_forward_and_backward(
    seed: int, tokens: int, width: int, latents: int, coefficient: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    variant = ReluL1(l1_coefficient=coefficient)
    sae = perturbed(build(variant, d_model=width, d_sae=latents, generator=generator), seed)
    x_TD = gaussian(seed + 9, tokens, width)
    fast = sae.outcome(x_TD, dead=torch.zeros(latents, dtype=torch.bool), progress=1.0)
    plain = reference.relu_l1(x_TD, as_weights(sae), l1_coefficient=coefficient)
    assert_same_gradients(sae, fast.loss, plain.loss)
    assert torch.equal(fast.fired, (plain.f > 0).any(0))


@given(seed=seeds, tokens=st.integers(1, 20), latents=st.integers(3, 30), k=st.integers(1, 3))
def test_sums_by_token_and_by_latent_are_products_with_the_dense_codes(
    seed: int, tokens: int, latents: int, k: int
) -> None:
    latent_TK = gaussian(seed, tokens, latents).topk(k, dim=1).indices
    weight = gaussian(seed + 1, tokens * k)
    f_TF = torch.zeros(tokens, latents, dtype=torch.float64).scatter(1, latent_TK, weight.view(tokens, k))
    rows_TD, rows_FD = gaussian(seed + 2, tokens, 5), gaussian(seed + 3, latents, 5)
    pattern = Pattern.of_rows(latent_TK, n_latents=latents)
    torch.testing.assert_close(pattern.sum_by_token(rows_FD, weight), f_TF @ rows_FD)
    torch.testing.assert_close(pattern.sum_by_latent(rows_TD, weight), f_TF.t() @ rows_TD)
    torch.testing.assert_close(
        pattern.dot(rows_TD, rows_FD), (rows_TD @ rows_FD.t()).gather(1, latent_TK).flatten()
    )


@given(seed=seeds, tokens=st.integers(0, 12), latents=st.integers(1, 20))
def test_codes_hold_exactly_the_positive_entries(seed: int, tokens: int, latents: int) -> None:
    f_TF = gaussian(seed, tokens, latents)
    codes = Codes.from_dense(f_TF)
    assert torch.equal(codes.dense(), f_TF.clamp(min=0))
    assert codes.tokens == tokens
    assert bool((codes.value > 0).all())
    shuffled = gaussian(seed + 1, tokens, latents).argsort(dim=1)
    from_pairs = Codes.from_pairs(f_TF.gather(1, shuffled), shuffled, n_latents=latents)
    for name in ("offsets", "latent", "value"):
        assert torch.equal(getattr(from_pairs, name), getattr(codes, name)), name


@given(seed=seeds, cut=st.integers(0, 10))
def test_codes_of_consecutive_tokens_join_to_the_codes_of_all(seed: int, cut: int) -> None:
    f_TF = gaussian(seed, 10, 7)
    joined = Codes.concatenate([Codes.from_dense(f_TF[:cut]), Codes.from_dense(f_TF[cut:])])
    assert torch.equal(joined.dense(), f_TF.clamp(min=0))
    assert torch.equal(joined.rows(), Codes.from_dense(f_TF).rows())
