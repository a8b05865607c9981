"""What is kept of the encoder's product, and products over entries, against brute force in float64."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from saeops.sae.select import encode_above, encode_topk, topk
from saeops.sae.sparse import Pattern, decode_at, encode_at, gather_rows, reconstruct_at
from tests.draws import gaussian, seeds


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


@given(seed=seeds, tokens=st.sampled_from([1, 7, 1100]), latents=st.integers(1, 60), each=st.booleans())
def test_entries_above_a_floor_are_all_there_in_order(seed: int, tokens: int, latents: int, each: bool) -> None:
    x_TD, W_FD, b_F = gaussian(seed, tokens, 4), gaussian(seed + 1, latents, 4), gaussian(seed + 2, latents)
    floor = gaussian(seed + 3, latents) if each else 0.7
    found = encode_above(x_TD, W_FD, b_F, floor)
    pre_TF = x_TD @ W_FD.t() + b_F
    token, latent = (pre_TF > floor).nonzero(as_tuple=True)
    assert torch.equal(found.pattern.row.long(), token)
    assert torch.equal(found.pattern.latent.long(), latent)
    torch.testing.assert_close(found.pre, pre_TF[token, latent])


@given(seed=seeds, rows=st.integers(1, 20), latents=st.integers(3, 30), share=st.floats(0, 1))
def test_sums_and_dots_over_entries_are_products_with_the_dense_codes(
    seed: int, rows: int, latents: int, share: float
) -> None:
    f_RF = gaussian(seed, rows, latents) * (gaussian(seed + 1, rows, latents).sigmoid() < share)
    row, latent = f_RF.nonzero(as_tuple=True)
    pattern = Pattern.of_entries(row, latent, n_rows=rows, n_latents=latents)
    weight = f_RF[row, latent]
    rows_RD, rows_FD = gaussian(seed + 2, rows, 5), gaussian(seed + 3, latents, 5)
    torch.testing.assert_close(pattern.sum_by_row(rows_FD, weight), f_RF @ rows_FD)
    sums = pattern.sum_by_latent(rows_RD, weight)
    torch.testing.assert_close(sums.rows_FD, f_RF.t() @ rows_RD)
    torch.testing.assert_close(sums.weight, f_RF.sum(0))
    torch.testing.assert_close(pattern.dot(rows_RD, rows_FD), (rows_RD @ rows_FD.t())[row, latent])


@given(seed=seeds, frozen=st.booleans())
def test_gradients_over_entries_equal_numerical_ones(seed: int, frozen: bool) -> None:
    latent_RK = gaussian(seed, 4, 6).topk(2, dim=1).indices
    pattern = Pattern.of_rows(latent_RK, n_latents=6)
    x_RD, y_RE = gaussian(seed + 1, 4, 3), gaussian(seed + 2, 4, 5)
    W_enc, b_enc = gaussian(seed + 3, 6, 3).requires_grad_(), gaussian(seed + 4, 6).requires_grad_()
    W_dec, b_dec = gaussian(seed + 5, 6, 5), gaussian(seed + 6, 5)
    trained = () if frozen else (W_dec.requires_grad_(), b_dec.requires_grad_())

    def loss(*_: torch.Tensor) -> torch.Tensor:
        pre = (x_RD @ W_enc.detach().t() + b_enc.detach()).gather(1, latent_RK).flatten()
        value = encode_at(x_RD, W_enc, b_enc, pre=pre, pattern=pattern)
        made = reconstruct_at(value, W_dec, b_dec, y_RE, pattern)
        return made.squared_error + decode_at(value, W_dec, pattern).sin().sum()

    assert torch.autograd.gradcheck(loss, (W_enc, b_enc, *trained))


@given(seed=seeds, rows=st.integers(0, 6))
def test_gathered_rows_get_their_gradient_and_no_others(seed: int, rows: int) -> None:
    matrix_FD, chosen = gaussian(seed, 6, 3).requires_grad_(), torch.randperm(6)[:rows]
    factor = gaussian(seed + 1, rows, 3)
    (gather_rows(matrix_FD, chosen) * factor).sum().backward()
    expected = torch.zeros(6, 3, dtype=torch.float64).index_copy(0, chosen, factor)
    assert matrix_FD.grad is not None
    assert torch.equal(matrix_FD.grad.to_dense(), expected)
