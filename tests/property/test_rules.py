"""The fast rule learner beside a plain one that tries everything."""

import itertools
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from saeops.labelling.patterns import Rule, Slot, as_rule, best_alternatives, learn
from saeops.labelling.words import ABSENT

WORDS = "abcdef"
TOKENS = st.integers(0, 5)
SLOTS = st.lists(st.none() | st.frozensets(TOKENS, min_size=1, max_size=3), min_size=1, max_size=4)


def matches_by_hand(slots: Sequence[Slot], tokens: Sequence[int]) -> bool:
    """Slot by slot from the judged token backwards; a place before the window matches nothing."""
    for back, slot in enumerate(reversed(slots)):
        token = tokens[len(tokens) - 1 - back] if back < len(tokens) else ABSENT
        if slot is None and token == ABSENT:
            return False
        if slot is not None and token not in slot:
            return False
    return True


def f1_by_hand(slots: Sequence[Slot], histories: np.ndarray, fires: np.ndarray) -> float:
    rule = as_rule(slots, WORDS)
    says = [rule.matches([WORDS[t] for t in row.tolist() if t != ABSENT]) for row in histories]
    hits = sum(s and f for s, f in zip(says, fires, strict=True))
    return 2 * hits / (sum(says) + int(fires.sum()))


@given(SLOTS, st.lists(TOKENS, min_size=1, max_size=8))
def test_a_rule_matches_as_the_plain_reading_does(slots: list[Slot], tokens: list[int]) -> None:
    rule = Rule(tuple(None if slot is None else frozenset(WORDS[i] for i in slot) for slot in slots))
    assert rule.matches([WORDS[t] for t in tokens]) == matches_by_hand(slots, tokens)


@given(SLOTS)
def test_a_rule_survives_its_json(slots: list[Slot]) -> None:
    rule = as_rule(slots, WORDS)
    assert Rule.from_json(rule.to_json()) == rule


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=6),
    st.integers(0, 10),
    st.integers(1, 4),
)
def test_the_best_alternatives_beat_every_subset(pairs: list[tuple[int, int]], missed: int, cap: int) -> None:
    hits = np.array([hit for hit, _ in pairs])
    counts = hits + np.array([extra for _, extra in pairs])
    firing = int(hits.sum()) + missed
    if firing == 0:
        return
    _, f1 = best_alternatives(hits, counts, firing=firing, cap=cap)
    subsets = itertools.chain.from_iterable(itertools.combinations(range(len(pairs)), n) for n in range(cap + 1))
    best = max(2 * hits[list(s)].sum() / (counts[list(s)].sum() + firing) for s in subsets)
    assert np.isclose(f1, best)


@st.composite
def histories(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    rows = draw(st.lists(st.lists(TOKENS, min_size=3, max_size=3), min_size=5, max_size=30))
    begun = draw(st.lists(st.integers(1, 3), min_size=len(rows), max_size=len(rows)))
    fires = draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    history = np.array([[ABSENT] * (3 - n) + row[3 - n :] for row, n in zip(rows, begun, strict=True)])
    return history, np.array(fires)


@given(histories())
@settings(max_examples=60, deadline=None)
def test_the_f1_a_rule_is_chosen_by_is_its_real_one(case: tuple[np.ndarray, np.ndarray]) -> None:
    history, fires = case
    fit = learn(history, fires, max_alternatives=3)
    if not fires.any():
        assert fit is None
        return
    assert fit is not None
    assert np.isclose(fit.f1, f1_by_hand(fit.slots, history, fires))


@given(histories())
@settings(max_examples=60, deadline=None)
def test_no_single_token_rule_is_better_than_the_one_learned(case: tuple[np.ndarray, np.ndarray]) -> None:
    history, fires = case
    fit = learn(history, fires, max_alternatives=3)
    if fit is None or int(fires.sum()) >= 10:  # from ten firings on, tokens that fire once are left out
        return
    for token in range(6):
        single: tuple[Slot, ...] = (None, None, frozenset({token}))
        assert fit.f1 >= f1_by_hand(single, history, fires) - 1e-9
