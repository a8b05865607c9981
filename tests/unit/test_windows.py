"""Windows and masks: what is read of a document, and what of it counts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saeops.activations.policy import TokenPolicy
from saeops.activations.windows import (
    cut_windows,
    document_positions,
    norm_limit,
    norm_mask,
    pad_windows,
    position_mask,
    window_lengths,
)

SPECIAL = frozenset({0, 1})


@given(
    tokens=st.lists(st.integers(2, 99), max_size=60),
    context_size=st.integers(4, 20),
    bos=st.sampled_from([None, 0]),
)
def test_windows_hold_each_token_once_at_its_position(
    tokens: list[int], context_size: int, bos: int | None
) -> None:
    windows = cut_windows(7, tokens, context_size=context_size, bos=bos)
    assert all(len(window.ids) <= context_size and window.document == 7 for window in windows)
    if not windows:
        assert not tokens
        return
    ids = pad_windows(windows)
    policy = TokenPolicy(skip_positions=0, mask_special=False)
    mask = position_mask(ids, window_lengths(windows), policy, SPECIAL, bos=bos)
    positions = document_positions(windows, ids.shape[1], bos=bos)
    assert positions[mask].tolist() == list(range(len(tokens)))
    assert ids[mask].tolist() == tokens


def masked(policy: TokenPolicy, *, bos: int | None = 0) -> list[list[bool]]:
    windows = cut_windows(0, [10, 11, 1, 12, 13, 14, 15], context_size=5, bos=bos)
    return position_mask(pad_windows(windows), window_lengths(windows), policy, SPECIAL, bos=bos).tolist()


def test_the_prepended_token_specials_and_padding_never_count() -> None:
    assert masked(TokenPolicy()) == [[False, True, True, False, True], [False, True, True, True, False]]


def test_the_prepended_token_is_left_out_even_when_nothing_is_skipped() -> None:
    assert masked(TokenPolicy(skip_positions=0, mask_special=False))[0] == [False, True, True, True, True]


def test_skipped_positions_include_the_prepended_token() -> None:
    assert masked(TokenPolicy(skip_positions=3))[1] == [False, False, False, True, False]


def test_without_a_prepended_token_the_first_of_the_document_is_skipped() -> None:
    assert masked(TokenPolicy(prepend_bos=False), bos=None) == [
        [False, True, False, True, True],
        [False, True, False, False, False],
    ]


def test_specials_count_where_the_policy_says_so() -> None:
    assert masked(TokenPolicy(mask_special=False))[0][3]


def test_outlier_norms_are_left_out_by_a_multiple_of_the_median() -> None:
    x_BWD = torch.ones(1, 5, 4)
    x_BWD[0, 0] *= 1000
    x_BWD[0, 3] *= 20
    counts = torch.tensor([[False, True, True, True, True]])
    limit = norm_limit(x_BWD, counts, TokenPolicy(max_norm_ratio=10))
    # The first position does not count, so it does not move the median either.
    assert limit == pytest.approx(20.0)
    assert norm_mask(x_BWD, limit).tolist() == [[False, True, True, False, True]]


def test_without_a_ratio_every_norm_counts() -> None:
    x_BWD = torch.full((1, 2, 4), 1e9)
    limit = norm_limit(x_BWD, torch.ones(1, 2, dtype=torch.bool), TokenPolicy(max_norm_ratio=None))
    assert limit is None
    assert norm_mask(x_BWD, limit).all()


def test_nan_is_not_hidden_by_the_norm_mask() -> None:
    assert norm_mask(torch.full((1, 1, 4), torch.nan), 10.0).all()
