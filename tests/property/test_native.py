"""The compiled kernels against the same formulas in plain torch, in fp32."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from saeops.sae.build import build
from saeops.sae.native import library
from saeops.sae.native.build import NotBuilt
from saeops.sae.native.library import Library
from saeops.sae.search import search_all, search_some
from saeops.sae.select import encode_above, encode_topk
from saeops.sae.sparse import Pattern, reconstruct_at
from saeops.sae.trainable import Shape
from saeops.sae.variants import TopK
from saeops.training.adam import Adam

seeds = st.integers(0, 2**31)


pytestmark = pytest.mark.usefixtures("kernels")


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def codes(seed: int, rows: int, latents: int, share: float) -> tuple[Pattern, Tensor]:
    """A pattern with any number of entries a row, none included, and a weight for each."""
    chosen = torch.rand(rows, latents, generator=torch.Generator().manual_seed(seed)) < share
    row, latent = chosen.nonzero(as_tuple=True)
    return Pattern.of_entries(row, latent, n_rows=rows, n_latents=latents), draw(seed + 1, len(row))


shapes = {
    "seed": seeds,
    "rows": st.integers(1, 40),
    "latents": st.integers(1, 200),
    "width": st.integers(1, 70),
    "share": st.sampled_from([0.0, 0.05, 0.5, 1.0]),
}


@given(
    seed=seeds,
    tokens=st.integers(1, 30),
    latents=st.integers(1, 700),
    width=st.integers(1, 20),
    data=st.data(),
    ties=st.booleans(),
)
def test_topk_is_the_brute_force_one_with_latents_in_order(
    seed: int, tokens: int, latents: int, width: int, data: st.DataObject, ties: bool
) -> None:
    k = data.draw(st.integers(1, latents))
    x_TD, W_FD = draw(seed, tokens, width), draw(seed + 1, latents, width)
    if ties:
        x_TD, W_FD = x_TD.round(), W_FD.round()
    picked = encode_topk(x_TD, W_FD, torch.zeros(latents), k)
    pre_TF = x_TD @ W_FD.t()
    torch.testing.assert_close(picked.value.sort(dim=1).values, pre_TF.sort(dim=1).values[:, -k:])
    torch.testing.assert_close(pre_TF.gather(1, picked.latent.long()), picked.value)
    assert bool((picked.latent.diff(dim=1) > 0).all())


@given(**shapes)
def test_entries_above_a_floor_are_all_and_only_those(
    seed: int, rows: int, latents: int, width: int, share: float
) -> None:
    x_TD, W_FD, b = draw(seed, rows, width), draw(seed + 1, latents, width), draw(seed + 2, latents)
    pre_TF = torch.addmm(b, x_TD, W_FD.t())
    floor = draw(seed + 3, latents) + pre_TF.quantile(1 - share)
    entries = encode_above(x_TD, W_FD, b, floor)
    row, latent = (pre_TF > floor).nonzero(as_tuple=True)
    assert torch.equal(entries.pattern.row.long(), row)
    assert torch.equal(entries.pattern.latent.long(), latent)
    assert torch.equal(entries.pre, pre_TF[row, latent])


@given(**shapes)
def test_sums_and_dots_are_those_of_plain_torch(
    seed: int, rows: int, latents: int, width: int, share: float
) -> None:
    pattern, weight = codes(seed, rows, latents, share)
    rows_RD, rows_FD = draw(seed + 2, rows, width), draw(seed + 3, latents, width)
    dense_RF = torch.zeros(rows, latents).index_put((pattern.row.long(), pattern.latent.long()), weight)
    tolerance = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(pattern.sum_by_row(rows_FD, weight), dense_RF @ rows_FD, **tolerance)
    sums = pattern.sum_by_latent(rows_RD, weight)
    torch.testing.assert_close(sums.rows_FD, dense_RF.t() @ rows_RD, **tolerance)
    torch.testing.assert_close(sums.weight, dense_RF.sum(0), **tolerance)
    expected = (rows_RD @ rows_FD.t())[pattern.row.long(), pattern.latent.long()]
    torch.testing.assert_close(pattern.dot(rows_RD, rows_FD), expected, **tolerance)


@given(**shapes)
def test_reconstruction_in_one_pass_has_the_gradients_of_the_plain_one(
    seed: int, rows: int, latents: int, width: int, share: float
) -> None:
    pattern, weight = codes(seed, rows, latents, share)
    y_RD = draw(seed + 2, rows, width)

    def parts(dtype: torch.dtype) -> list[Tensor]:
        inputs = [weight, draw(seed + 3, latents, width), draw(seed + 4, width)]
        value, W_dec_FD, b_dec = (tensor.to(dtype).requires_grad_() for tensor in inputs)
        made = reconstruct_at(value, W_dec_FD, b_dec, y_RD.to(dtype), pattern)
        grads = torch.autograd.grad(3 * made.squared_error, [value, W_dec_FD, b_dec])
        return [made.squared_error.detach(), made.residual_RD, *grads]

    # In float64 the plain path runs.
    for fast, plain in zip(parts(torch.float32), parts(torch.float64), strict=True):
        torch.testing.assert_close(fast.double(), plain, rtol=1e-3, atol=1e-3)


@given(
    seed=seeds, latents=st.integers(1, 30), width=st.integers(1, 40), unit=st.booleans(), clip=st.floats(0.1, 50)
)
def test_adam_in_one_pass_moves_as_the_plain_one(
    seed: int, latents: int, width: int, unit: bool, clip: float
) -> None:
    start = torch.nn.functional.normalize(draw(seed, latents, width), dim=1)

    def moved(dtype: torch.dtype) -> tuple[Tensor, float]:
        parameter = start.to(dtype).clone()
        optimiser = Adam.of({"rows": parameter}, unit_rows=frozenset({"rows"} if unit else ()))
        norm = 0.0
        for step in range(4):
            parameter.grad = draw(seed + step + 1, latents, width).to(dtype)
            norm = optimiser.grad_norm()
            optimiser.step(lr=0.01, grad_norm=norm, clip=clip)
        return parameter, norm

    fast, fast_norm = moved(torch.float32)
    plain, plain_norm = moved(torch.float64)
    torch.testing.assert_close(fast.double(), plain, rtol=1e-3, atol=2e-4)
    assert fast_norm == pytest.approx(plain_norm, rel=1e-3, abs=1e-3)


def needs_search(kernels: Library) -> None:
    if not kernels.has_search:
        pytest.skip("this processor multiplies neither bfloat16 nor bytes")


searched = {
    "seed": seeds,
    "tokens": st.integers(1, 50),
    "width": st.integers(1, 90),
    "latents": st.integers(64, 400),
    "k": st.integers(1, 8),
    "power": st.sampled_from([0.0, 1.0, 3.0]),
}
"""`power`: dimensions from 10^−power to 10^power times as large, as residual streams have them."""


def problem(seed: int, tokens: int, width: int, latents: int, power: float) -> tuple[Tensor, Tensor, Tensor]:
    uneven_D = 10 ** torch.linspace(-power, power, width)
    return draw(seed, tokens, width) * uneven_D, draw(seed + 1, latents, width), draw(seed + 2, latents)


@given(**searched)
def test_the_search_of_all_finds_what_the_dense_product_finds(
    kernels: Library, seed: int, tokens: int, width: int, latents: int, k: int, power: float
) -> None:
    needs_search(kernels)
    x_TD, W_FD, b = problem(seed, tokens, width, latents, power)
    found = search_all(kernels, x_TD, W_FD, b, k)
    sure = ~found.unsure.bool()
    pre_TF = torch.addmm(b, x_TD, W_FD.t())
    best_TK = pre_TF.topk(k, dim=1).values
    scale = 1e-5 * float(x_TD.norm(dim=1).max() * W_FD.norm(dim=1).max())
    values_TK = found.value.sort(dim=1, descending=True).values
    torch.testing.assert_close(values_TK[sure], best_TK[sure], rtol=1e-5, atol=scale)
    assert bool((found.latent.diff(dim=1)[sure] > 0).all())
    assert float(sure.float().mean()) > 0.5


@given(**searched)
def test_a_search_of_some_computes_what_it_finds_exactly(
    kernels: Library, seed: int, tokens: int, width: int, latents: int, k: int, power: float
) -> None:
    needs_search(kernels)
    x_TD, W_FD, b = problem(seed, tokens, width, latents, power)
    found = search_some(kernels, x_TD, W_FD, b, k, candidates=2 * k)
    pre_TF = torch.addmm(b, x_TD, W_FD.t())
    scale = 1e-5 * float(x_TD.norm(dim=1).max() * W_FD.norm(dim=1).max())
    torch.testing.assert_close(found.value, pre_TF.gather(1, found.latent.long()), rtol=1e-5, atol=scale)
    assert bool((found.latent.diff(dim=1) > 0).all())
    assert not bool(found.unsure.any())


def test_where_too_many_latents_come_into_question_the_dense_product_settles_it(kernels: Library) -> None:
    needs_search(kernels)
    # Twins of one latent, which rounding cannot tell apart, and only the last has a larger bias.
    W_FD = draw(1, 1, 16).expand(2000, 16).contiguous()
    b = torch.zeros(2000)
    b[-3:] = 1e-4
    x_TD = draw(1, 1, 16).expand(5, 16).contiguous()
    assert bool(search_all(kernels, x_TD, W_FD, b, 3).unsure.all())
    picked = encode_topk(x_TD, W_FD, b, 3)
    assert picked.latent.tolist() == [[1997, 1998, 1999]] * 5


def test_a_token_that_holds_nan_shows_it(kernels: Library) -> None:
    needs_search(kernels)
    x_TD = draw(1, 4, 16)
    x_TD[2, 3] = float("nan")
    picked = encode_topk(x_TD, draw(2, 400, 16), torch.zeros(400), 3)
    assert bool(picked.value[2].isnan().any())
    assert bool(picked.value[[0, 1, 3]].isfinite().all())


def shortlisted(min_recall: float) -> tuple[list[float], list[str]]:
    """The recall of ten steps with the shortlist, and what was said."""
    variant = TopK(k=4, encoder="shortlist", min_recall=min_recall)
    sae = build(variant, Shape(48, 512, 48), generator=torch.Generator().manual_seed(0))
    recalls, said = [], []
    for step in range(10):
        x_TD = draw(step, 64, 48)
        outcome = sae.outcome(x_TD, x_TD, dead=torch.zeros(512, dtype=torch.bool), progress=0.5)
        recalls.append(outcome.encoder_recall)
        said += [outcome.notice] if outcome.notice else []
    return recalls, said


def test_the_shortlist_finds_nearly_all_and_its_recall_is_measured(kernels: Library) -> None:
    needs_search(kernels)
    recalls, said = shortlisted(min_recall=0.5)
    assert 0.95 < min(recalls) <= 1
    assert not said


def test_a_shortlist_that_misses_too_many_gives_way_to_the_exact_encoder_and_says_so(
    kernels: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_search(kernels)
    monkeypatch.setattr("saeops.sae.shortlist.CANDIDATES", 1.0)
    monkeypatch.setattr("saeops.sae.search._stretch", lambda x_TD, _: 10 ** torch.linspace(-3, 3, x_TD.shape[1]))
    recalls, said = shortlisted(min_recall=0.999)
    assert recalls[0] < 0.999
    assert recalls[-1] == 1
    assert len(said) == 1
    assert "encoding exactly" in said[0]
    assert torch.equal(torch.tensor(recalls[1:]), torch.ones(9))


@pytest.mark.parametrize("encoder", ["exact", "shortlist"])
def test_the_bits_do_not_depend_on_the_number_of_threads(encoder: str) -> None:
    def gradients(threads: int) -> list[Tensor]:
        torch.set_num_threads(threads)
        variant = TopK(k=4, encoder=encoder)  # type: ignore[arg-type]
        sae = build(variant, Shape(48, 512, 48), generator=torch.Generator().manual_seed(0))
        x_TD = draw(5, 300, 48)
        sae.outcome(x_TD, x_TD, dead=torch.zeros(512, dtype=torch.bool), progress=0.5).loss.backward()
        return [p.grad for p in sae.parameters() if p.grad is not None]

    try:
        for one, two in zip(gradients(1), gradients(2), strict=True):
            assert torch.equal(one, two)
    finally:
        torch.set_num_threads(1)


def test_without_a_compiler_there_is_a_reason_and_plain_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.disable()
    monkeypatch.setenv("PATH", str(tmp_path))
    found = library.enable(tmp_path / "kernels")
    assert isinstance(found, NotBuilt)
    assert "no C++ compiler" in found.reason
    assert library.for_tensors(torch.zeros(3)) is None


def test_a_compiler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library.disable()
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho 'fatal error: out of luck' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    found = library.enable(tmp_path / "kernels")
    assert isinstance(found, NotBuilt)
    assert "out of luck" in found.reason
    assert not list((tmp_path / "kernels").glob("*.so"))
