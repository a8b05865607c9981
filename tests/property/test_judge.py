"""The judge's rules, for any interval and any gate."""

import json

from hypothesis import given
from hypothesis import strategies as st

from saeops.promotion.evidence import Evidence
from saeops.promotion.judge import judge
from saeops.promotion.policy import Gate, PromotePolicy
from saeops.promotion.verdict import Verdict
from saeops.review.outcome import ReviewOutcome
from saeops.stats import Interval, wilson

ORDER = {"fail": 0, "inconclusive": 1, "pass": 2}
numbers = st.floats(-1e6, 1e6)
REVIEWED = ReviewOutcome(10, 10, (), 10, 0, 0, wilson(10, 10))


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    low, point, high = sorted(draw(st.tuples(numbers, numbers, numbers)))
    return Interval(point, low, high, 40, "documents")


def evidence(metrics: dict[str, Interval], *, bundle: str = "c" * 64) -> Evidence:
    return Evidence(bundle, metrics, REVIEWED)


def outcome_of(gate: Gate, value: Interval, champion: Interval | None = None, better: str = "higher") -> str:
    """The gate's own outcome; it is the only one, so the first."""
    theirs = evidence({"m": champion}, bundle="d" * 64) if champion else None
    return judge(evidence({"m": value}), theirs, PromotePolicy(gates=(gate,)), {"m": better}).gates[0].outcome


@given(intervals(), numbers, st.floats(0, 1e6))
def test_tightening_a_floor_never_improves_the_outcome(value: Interval, least: float, by: float):
    loose, tight = Gate(metric="m", at_least=least), Gate(metric="m", at_least=least + by)
    assert ORDER[outcome_of(tight, value)] <= ORDER[outcome_of(loose, value)]


@given(intervals(), numbers, st.floats(0, 1e6))
def test_tightening_a_ceiling_never_improves_the_outcome(value: Interval, most: float, by: float):
    loose, tight = Gate(metric="m", at_most=most), Gate(metric="m", at_most=most - by)
    assert ORDER[outcome_of(tight, value)] <= ORDER[outcome_of(loose, value)]


@given(intervals(), intervals(), st.floats(0, 1e6), st.floats(0, 1e6), st.sampled_from(["higher", "lower"]))
def test_a_smaller_margin_to_the_champion_never_improves_the_outcome(value, champion, margin, more, better):
    loose = Gate(metric="m", not_worse_than_champion_by=margin + more)
    tight = Gate(metric="m", not_worse_than_champion_by=margin)
    assert ORDER[outcome_of(tight, value, champion, better)] <= ORDER[outcome_of(loose, value, champion, better)]


@given(intervals(), numbers)
def test_a_pass_means_that_the_whole_interval_clears_the_floor(value: Interval, least: float):
    outcome = outcome_of(Gate(metric="m", at_least=least), value)
    assert (outcome == "pass") == (value.low >= least)
    assert (outcome == "fail") == (value.high < least)


@given(intervals(), numbers)
def test_a_floor_on_a_figure_is_a_ceiling_on_its_negative(value: Interval, least: float):
    negative = Interval(-value.point, -value.high, -value.low, value.n, value.unit)
    floor, ceiling = Gate(metric="m", at_least=least), Gate(metric="m", at_most=-least)
    assert outcome_of(floor, value) == outcome_of(ceiling, negative)


@given(intervals(), st.sampled_from(["low", "high"]), numbers)
def test_a_missing_bound_fails(value: Interval, bound: str, limit: float):
    spoiled = Interval(**{**value.to_json(), bound: None})
    for gate in (Gate(metric="m", at_least=limit), Gate(metric="m", at_most=limit)):
        assert outcome_of(gate, spoiled) == "fail"


@given(st.lists(intervals(), min_size=1, max_size=4), st.data())
def test_the_overall_outcome_is_the_worst_of_the_gates(values: list[Interval], data: st.DataObject):
    metrics = {f"m{i}": value for i, value in enumerate(values)}
    gates = tuple(Gate(metric=name, at_least=data.draw(numbers)) for name in metrics)
    verdict = judge(evidence(metrics), None, PromotePolicy(gates=gates), {})
    worst = min((ORDER[g.outcome] for g in verdict.gates if g.outcome in ORDER), default=2)
    assert ORDER[verdict.outcome] == worst


@given(st.lists(intervals(), max_size=3), numbers)
def test_a_verdict_comes_back_from_json_with_the_same_digest(values: list[Interval], limit: float):
    metrics = {f"m{i}": value for i, value in enumerate(values)}
    gates = tuple(Gate(metric=f"m{i}", at_least=limit) for i in range(3))
    verdict = judge(evidence(metrics), None, PromotePolicy(gates=gates), {})
    again = Verdict.from_json(json.loads(json.dumps(verdict.to_json())))
    assert again == verdict
    assert again.digest == verdict.digest
