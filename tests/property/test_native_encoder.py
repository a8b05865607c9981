"""A trained SAE's encoding with compiled kernels: that of the dense formula, however the tokens were cut."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from saeops.sae.canonical import Sae, SaeMeta
from saeops.sae.codes import Codes
from saeops.sae.native.library import Library
from tests.draws import seeds

D, F = 24, 700
SEARCHED, DENSE = 5, 40
"""k with more and with fewer than 64 latents for each that is kept."""


pytestmark = pytest.mark.usefixtures("kernels")


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def an_sae(seed: int, k: int | None, *, applied: bool, thresholds: bool) -> Sae:
    meta = SaeMeta(
        variant="topk", site="blocks.0.resid_post", d_model=D, d_sae=F, k=k, apply_b_dec_to_input=applied
    )
    tensors = {
        "W_enc": draw(seed, D, F),
        "b_enc": draw(seed + 1, F),
        "W_dec": normalize(draw(seed + 2, F, D), dim=1),
        "b_dec": draw(seed + 3, D),
    }
    if thresholds:
        # Some below 0: a latent never fires below 0, whatever its threshold.
        tensors["threshold"] = 4 * draw(seed + 4, F)
    return Sae.of(tensors, meta)


def dense(sae: Sae, x_TD: Tensor) -> Tensor:
    """The activations by their definition."""
    pre_TF = sae.pre(x_TD)
    if sae.k is not None:
        best = pre_TF.topk(sae.k, dim=1)
        pre_TF = torch.zeros_like(pre_TF).scatter(1, best.indices, best.values)
    elif sae.threshold is not None:
        pre_TF = pre_TF * (pre_TF > sae.threshold)
    return pre_TF.clamp(min=0)


def assert_equal(codes: Codes, others: Codes) -> None:
    for name in ("offsets", "latent", "value"):
        assert torch.equal(getattr(codes, name), getattr(others, name)), name


@given(
    seed=seeds,
    tokens=st.integers(0, 30),
    k=st.sampled_from([None, SEARCHED, DENSE]),
    applied=st.booleans(),
    thresholds=st.booleans(),
)
def test_what_fires_is_what_the_dense_formula_says(
    seed: int, tokens: int, k: int | None, applied: bool, thresholds: bool
) -> None:
    sae = an_sae(seed, k, applied=applied, thresholds=thresholds)
    x_TD = draw(seed + 9, tokens, D)
    codes = sae.encode(x_TD)
    torch.testing.assert_close(codes.dense(), dense(sae, x_TD), rtol=1e-4, atol=1e-4)
    assert codes.latent.dtype == codes.offsets.dtype == torch.int64
    assert bool((codes.value > 0).all())


@given(seed=seeds, cut=st.integers(1, 29))
@settings(max_examples=30)
def test_a_search_gives_the_same_bits_however_the_tokens_were_cut(seed: int, cut: int, kernels: Library) -> None:
    if not kernels.has_search:
        pytest.skip("this processor multiplies no bfloat16")
    sae, x_TD = an_sae(seed, SEARCHED, applied=True, thresholds=False), draw(seed + 9, 30, D)
    in_parts = Codes.concatenate([sae.encode(x_TD[:cut]), sae.encode(x_TD[cut:])])
    assert_equal(in_parts, sae.encode(x_TD))


def test_a_view_that_is_not_contiguous_encodes_like_its_copy() -> None:
    sae, x_DT = an_sae(1, SEARCHED, applied=False, thresholds=False), draw(2, D, 12)
    assert_equal(sae.encode(x_DT.t()), sae.encode(x_DT.t().contiguous()))
