"""Codes against the dense matrices they stand for."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from saeops.sae.codes import Codes
from tests.draws import gaussian, seeds


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


@given(seed=seeds, chosen=st.lists(st.integers(0, 9), max_size=12))
def test_codes_of_chosen_tokens_stand_in_the_order_asked_for(seed: int, chosen: list[int]) -> None:
    f_TF = gaussian(seed, 10, 7)
    rows = torch.tensor(chosen, dtype=torch.long)
    assert torch.equal(Codes.from_dense(f_TF).take(rows).dense(), f_TF.clamp(min=0)[rows])


@given(seed=seeds, first=st.integers(0, 10), stop=st.integers(0, 10))
def test_a_part_holds_the_codes_of_its_tokens(seed: int, first: int, stop: int) -> None:
    f_TF = gaussian(seed, 10, 7)
    part, alone = Codes.from_dense(f_TF)[first:stop], Codes.from_dense(f_TF[first:stop])
    for name in ("offsets", "latent", "value"):
        assert torch.equal(getattr(part, name), getattr(alone, name)), name
