"""The judge beside champion and nulls: what holds whatever the figures are."""

import random

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from saeops.promotion.evidence import Evidence
from saeops.promotion.judge import judge
from saeops.promotion.policy import Gate, PromotePolicy
from saeops.promotion.verdict import Verdict
from saeops.review.outcome import ReviewOutcome
from saeops.stats import Interval, wilson

ORDER = {"fail": 0, "inconclusive": 1, "pass": 2}
REVIEWED = ReviewOutcome(10, 10, (), 10, 0, 0, wilson(10, 10))
METRICS = ("up", "down")
DIRECTIONS = {"up": "higher", "down": "lower"}
eighths = st.integers(-4000, 4000).map(lambda n: n / 8)
margins = st.integers(0, 400).map(lambda n: n / 8)


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    low, point, high = sorted(draw(st.tuples(eighths, eighths, eighths)))
    return Interval(point, low, high, 40, "documents")


figures = st.fixed_dictionaries({name: intervals() for name in METRICS})


@st.composite
def gates(draw: st.DrawFn) -> Gate:
    asked = draw(st.sets(st.sampled_from(["at_least", "at_most", "champion", "null"]), min_size=1))
    return Gate(
        metric=draw(st.sampled_from(METRICS)),
        at_least=draw(eighths) if "at_least" in asked else None,
        at_most=draw(eighths) if "at_most" in asked else None,
        not_worse_than_champion_by=draw(margins) if "champion" in asked else None,
        beats={"pca": draw(margins)} if "null" in asked else {},
        dry_run=draw(st.booleans()),
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[Evidence, Evidence | None, PromotePolicy]:
    candidate = Evidence("c" * 64, draw(figures), REVIEWED, nulls={"pca": draw(figures)})
    champion = draw(st.none() | st.builds(lambda found: Evidence("d" * 64, found, REVIEWED), figures))
    return candidate, champion, PromotePolicy(gates=tuple(draw(st.lists(gates(), max_size=5))))


def ruled(candidate: Evidence, champion: Evidence | None, policy: PromotePolicy) -> Verdict:
    return judge(candidate, champion, policy, DIRECTIONS)


def changed(evidence: Evidence, change: "dict[str, tuple[float, float]]") -> Evidence:
    """Every figure × factor + shift, bounds and nulls too where shift is 0."""
    moved = {name: linear(evidence.metrics[name], *change[name]) for name in METRICS}
    unit = all(shift == 0 for _, shift in change.values())
    nulls = {
        null: {name: linear(found[name], *change[name]) for name in METRICS} if unit else found
        for null, found in evidence.nulls.items()
    }
    return Evidence(evidence.bundle, moved, evidence.review, nulls=nulls)


def linear(value: Interval, factor: float, shift: float) -> Interval:
    assert value.low is not None
    assert value.high is not None
    ends = (factor * end + shift for end in (value.point, value.low, value.high))
    return Interval(*ends, value.n, value.unit)


def one_way(policy: PromotePolicy) -> PromotePolicy:
    """Without limits that ask a figure not to be better."""
    kept = [
        gate.model_copy(update={"at_most": None} if gate.metric == "up" else {"at_least": None})
        for gate in policy.gates
    ]
    asking = [g for g in kept if g.beats or (g.at_least, g.at_most, g.not_worse_than_champion_by) != (None,) * 3]
    return policy.model_copy(update={"gates": tuple(asking)})


@given(cases(), margins, margins)
def test_a_better_candidate_never_gets_a_worse_outcome(case, up: float, down: float):
    candidate, champion, policy = case
    policy = one_way(policy)
    better = changed(candidate, {"up": (1, up), "down": (1, -down)})
    before, after = ruled(candidate, champion, policy), ruled(better, champion, policy)
    for old, new in zip(before.gates, after.gates, strict=True):
        assert old.outcome == new.outcome or ORDER[new.outcome] > ORDER[old.outcome], old.requirement
    assert ORDER[after.outcome] >= ORDER[before.outcome]


@given(cases(), st.integers(0, 2**32))
def test_the_order_of_the_gates_does_not_matter(case, seed: int):
    candidate, champion, policy = case
    mixed = list(policy.gates)
    random.Random(seed).shuffle(mixed)
    one, other = ruled(candidate, champion, policy), ruled(candidate, champion, PromotePolicy(gates=tuple(mixed)))
    assert one.outcome == other.outcome
    assert sorted(map(str, one.gates)) == sorted(map(str, other.gates))


@given(cases(), st.sampled_from(METRICS))
def test_a_missing_figure_fails_every_gate_on_it(case, name: str):
    candidate, champion, policy = case
    rest = {other: value for other, value in candidate.metrics.items() if other != name}
    verdict = ruled(Evidence(candidate.bundle, rest, REVIEWED, nulls=candidate.nulls), champion, policy)
    asked = [gate for gate in verdict.gates if gate.metric == name and gate.outcome != "not applicable"]
    assert all(gate.outcome == "fail" for gate in asked)
    if any(not gate.dry_run for gate in asked):
        assert verdict.outcome == "fail"


@given(cases(), st.sampled_from([0.25, 0.5, 2.0, 1024.0]), st.sampled_from([0.5, 4.0]))
def test_the_unit_of_a_figure_changes_no_outcome(case, first: float, second: float):
    candidate, champion, policy = case
    factors = {"up": (first, 0.0), "down": (second, 0.0)}
    scaled = PromotePolicy(gates=tuple(in_unit(gate, factors[gate.metric][0]) for gate in policy.gates))
    one = ruled(candidate, champion, policy)
    other = ruled(changed(candidate, factors), champion and changed(champion, factors), scaled)
    assert [gate.outcome for gate in one.gates] == [gate.outcome for gate in other.gates]


def in_unit(gate: Gate, factor: float) -> Gate:
    def times(limit: float | None) -> float | None:
        return None if limit is None else factor * limit

    return gate.model_copy(
        update={
            "at_least": times(gate.at_least),
            "at_most": times(gate.at_most),
            "not_worse_than_champion_by": times(gate.not_worse_than_champion_by),
            "beats": {null: factor * by for null, by in gate.beats.items()},
        }
    )


@given(cases())
def test_a_dry_run_changes_nothing_of_the_rest(case):
    candidate, champion, policy = case
    counted = tuple(gate for gate in policy.gates if not gate.dry_run)
    with_dry, without = (
        ruled(candidate, champion, policy),
        ruled(candidate, champion, PromotePolicy(gates=counted)),
    )
    assert with_dry.outcome == without.outcome
    assert with_dry.counted == without.gates


@settings(max_examples=25, deadline=None)
@given(st.integers(8, 30), st.integers(0, 1000), st.floats(0, 0.5), st.sampled_from([0.0, 0.02, 0.1]))
def test_paired_a_better_candidate_never_gets_a_worse_outcome(n: int, seed: int, better: float, margin: float):
    generator = np.random.default_rng(seed)
    champion = documents(n, generator)
    worse = champion.assign(error=champion["error"] * generator.uniform(0.8, 1.3, n))
    good = worse.assign(error=worse["error"] - better * 0.1 * worse["spread"])
    outcomes = [paired_outcome(table, champion, margin) for table in (worse, good)]
    assert ORDER[outcomes[1]] >= ORDER[outcomes[0]]


def documents(n: int, generator: np.random.Generator) -> pd.DataFrame:
    tokens = generator.integers(5, 500, n).astype(float)
    spread = tokens * generator.uniform(0.5, 2, n)
    table = {
        name: np.ones(n) for name in ("values", "square", "cosine", "norm_out", "dot", "fired", "predictions")
    }
    names = {"document": range(n), "sha256": [f"{i:064x}" for i in range(n)]}
    return pd.DataFrame(names | table | {"tokens": tokens, "spread": spread, "error": 0.3 * spread})


def paired_outcome(ours: pd.DataFrame, theirs: pd.DataFrame, margin: float) -> str:
    wide = {"explained_variance": Interval(0.7, 0.2, 0.9, len(ours), "documents")}
    sides = [
        Evidence(16 * name, wide, REVIEWED, documents=table) for name, table in (("cafe", ours), ("dead", theirs))
    ]
    policy = PromotePolicy(gates=(Gate(metric="explained_variance", not_worse_than_champion_by=margin),))
    gate = judge(sides[0], sides[1], policy, {"explained_variance": "higher"}).gates[0]
    assert "paired by document" in gate.reason
    return gate.outcome
