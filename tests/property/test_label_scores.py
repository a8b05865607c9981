"""Bounds and base rates against simulation: a judge that knows nothing must look like one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saeops.labelling.examples import TestSet
from saeops.labelling.labels import Unparsed, Verdict
from saeops.labelling.scoring import confidence, score
from tests.labelling_world import snippet


def drawn(positives: int, randoms: int, hards: int = 0, *, base_rate: float = 0.01, share: float = 0.0) -> TestSet:
    snippets = [snippet([1], "positive")] * positives + [snippet([2], "random")] * randoms
    snippets += [snippet([1], "hard", look_alike=True)] * hards
    return TestSet(0, tuple(snippets), base_rate, share)


def scored(verdicts: list[Verdict], test: TestSet, **choices: int) -> float:
    return score(verdicts, test, **{"competing": 1, "min_positives": 5, **choices}).confidence


SIZES = st.integers(0, 400)


@given(SIZES, SIZES, st.booleans(), st.integers(1, 4))
def test_always_yes_and_always_no_are_worth_nothing(p: int, n: int, says: bool, competing: int) -> None:
    assert scored([says] * (p + n), drawn(p, n), competing=competing) == 0


@given(st.integers(5, 400), st.integers(0, 400), st.integers(0, 10**6))
def test_a_judge_that_deals_the_same_yes_to_both_is_worth_nothing(p: int, n: int, seed: int) -> None:
    """The same share of yes on firing and silent snippets, whichever share it is."""
    share = np.random.default_rng(seed).random()
    yes = [True] * round(share * p) + [False] * (p - round(share * p))
    no = [True] * round(share * n) + [False] * (n - round(share * n))
    assert confidence(yes, no, competing=1, min_positives=1) <= 0.5 / p + 0.5 / max(n, 1)


@pytest.mark.parametrize("yes_rate", [0.1, 0.5, 0.9])
def test_a_coin_gets_confidence_no_more_often_than_alpha(yes_rate: float) -> None:
    generator = np.random.default_rng(0)
    flips = generator.random((4000, 50)) < yes_rate
    lucky = [confidence(row[:20].tolist(), row[20:].tolist(), competing=1, min_positives=5) > 0 for row in flips]
    assert np.mean(lucky) < 0.05


@pytest.mark.parametrize(("tpr", "tnr"), [(0.9, 0.95), (0.7, 0.8), (1.0, 1.0)])
def test_confidence_is_a_lower_bound_of_youdens_j(tpr: float, tnr: float) -> None:
    generator = np.random.default_rng(1)
    covered = []
    for _ in range(2000):
        hits, quiet = generator.random(20) < tpr, generator.random(20) < 1 - tnr
        covered.append(confidence(hits.tolist(), quiet.tolist(), competing=1, min_positives=5) <= tpr + tnr - 1)
    assert np.mean(covered) >= 0.95


def test_the_best_of_many_coins_is_still_bounded() -> None:
    """Choosing the best of four labels that mean nothing: fewer than α of such choices seem to mean something."""
    flips = np.random.default_rng(2).random((1500, 4, 40)) < 0.5
    best = [max(confidence(f[:20], f[20:], competing=4, min_positives=5) for f in each.tolist()) for each in flips]
    assert np.mean(np.array(best) > 0) < 0.05


@given(st.floats(0.001, 0.5), st.floats(0.1, 1), st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 0.9))
def test_precision_is_that_of_running_text(
    base_rate: float, tpr: float, fp_alike: float, fp_other: float, share: float
) -> None:
    """Against counts in an imagined text of a million tokens, with every rate exact."""
    n = 1000
    test = drawn(n, n, n, base_rate=base_rate, share=share)
    yes = [round(rate * n) for rate in (tpr, fp_other, fp_alike)]
    verdicts: list[Verdict] = [v for k in yes for v in [True] * k + [False] * (n - k)]
    tokens = 1e6
    fires, silent = base_rate * tokens, (1 - base_rate) * tokens
    right = fires * yes[0] / n
    wrong = silent * share * yes[2] / n + silent * (1 - share) * yes[1] / n
    precision = score(verdicts, test, competing=1, min_positives=5).precision
    assert precision.point == pytest.approx(right / (right + wrong))
    assert precision.low is not None
    assert precision.high is not None
    assert precision.low <= precision.point + 1e-12
    assert precision.point <= precision.high + 1e-12


def test_precision_is_covered_by_its_interval_when_snippets_are_drawn_from_a_text() -> None:
    """Draw firing, random and look-alike snippets from a text whose true precision is known."""
    generator = np.random.default_rng(3)
    base_rate, share, tpr, fp_alike, fp_other = 0.02, 0.05, 0.8, 0.4, 0.03
    wrong = (1 - base_rate) * (share * fp_alike + (1 - share) * fp_other)
    truth = base_rate * tpr / (base_rate * tpr + wrong)
    points, covered = [], []
    for _ in range(400):
        alike = generator.random(200) < share
        snippets = [snippet([1], "positive")] * 200
        snippets += [snippet([2], "random", look_alike=bool(a)) for a in alike]
        snippets += [snippet([1], "hard", look_alike=True)] * 100
        rates = [tpr] * 200 + [fp_alike if a else fp_other for a in alike] + [fp_alike] * 100
        verdicts: list[Verdict] = (generator.random(500) < rates).tolist()
        test = TestSet(0, tuple(snippets), base_rate, share)
        found = score(verdicts, test, competing=1, min_positives=5).precision
        points.append(found.point)
        assert found.low is not None
        assert found.high is not None
        covered.append(found.low <= truth <= found.high)
    assert np.mean(covered) >= 0.95
    assert np.mean(points) == pytest.approx(truth, abs=0.02)


@given(st.lists(st.booleans(), min_size=30, max_size=30), st.integers(0, 2**30 - 1))
def test_answers_that_cannot_be_read_move_no_rate(answers: list[bool], lost: int) -> None:
    test = drawn(10, 20)
    holes: list[Verdict] = [Unparsed("?") if lost >> i & 1 else v for i, v in enumerate(answers)]
    found = score(holes, test, competing=1, min_positives=1)
    positives = [v for v in holes[:10] if not isinstance(v, Unparsed)]
    assert found.tpr.n == len(positives)
    assert found.tpr.point == (sum(positives) / len(positives) if positives else 0)
    assert found.parse_failures == lost.bit_count()
    assert found.asked == 30
    assert found.tpr.n + found.tnr.n + found.fp_hard.n + found.parse_failures == 30


def test_too_few_firing_snippets_leave_no_confidence() -> None:
    perfect: list[Verdict] = [True] * 4 + [False] * 50
    assert scored(perfect, drawn(4, 50)) == 0
    assert scored([True, *perfect], drawn(5, 50)) > 0
