"""Splits: by document, once, from its text alone."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saeops.activations.split import SPLITS, SplitFractions, assign_split
from saeops.errors import ParamsInvalid
from tests.tiny import tiny_params

DEFAULT = SplitFractions()


@given(text=st.text(), seed=st.integers(0, 5))
def test_a_document_has_one_split_whatever_else_is_in_the_corpus(text: str, seed: int) -> None:
    assert assign_split(text, DEFAULT, seed=seed) == assign_split(str(text), DEFAULT, seed=seed)
    assert assign_split(text, DEFAULT, seed=seed) in SPLITS


def test_splits_get_the_shares_they_were_given() -> None:
    found = Counter(assign_split(f"document {n}", DEFAULT, seed=0) for n in range(20_000))
    for split in SPLITS:
        assert found[split] / 20_000 == pytest.approx(getattr(DEFAULT, split), abs=0.015)


def test_another_seed_deals_anew() -> None:
    texts = [f"document {n}" for n in range(500)]
    moved = sum(assign_split(t, DEFAULT, seed=0) != assign_split(t, DEFAULT, seed=1) for t in texts)
    assert 150 < moved < 450


@given(grown=st.floats(0.01, 0.2))
def test_a_larger_train_share_takes_only_from_its_neighbours(grown: float) -> None:
    wider = SplitFractions(train=0.6 + grown, eval=0.05, explain=0.05, score=0.05, panel=0.25 - grown)
    texts = [f"document {n}" for n in range(100)]
    for text in texts:
        if assign_split(text, DEFAULT, seed=0) == "train":
            assert assign_split(text, wider, seed=0) == "train"


def test_shares_that_do_not_sum_to_one_are_refused_with_their_path() -> None:
    with pytest.raises(ParamsInvalid, match=r"harvest\.splits: .*sum to 1"):
        tiny_params(harvest={"splits": {"train": 0.9}})
