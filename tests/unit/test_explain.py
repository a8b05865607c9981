"""Verdicts explained, from the store and in words."""

import json
from pathlib import Path

import pytest

from saeops.adapters.projection import MemoryProjection
from saeops.adapters.stores import MemoryStore
from saeops.errors import FormatUnknown, GateRefused, JournalBroken, NameUnknown, UsageError, VersionUnknown
from saeops.promotion.explain import explain, explain_gate, samples_needed
from saeops.promotion.policy import PromotePolicy
from saeops.promotion.verdict import GateResult, Verdict
from saeops.stages import explain as stage
from saeops.stages import promote, rollback
from saeops.stages.walk import Registry
from saeops.stats import Interval
from tests.bundles import NAME, author, tiny_bundle, tiny_params

GOLDEN = Path(__file__).parents[1] / "golden"
REVIEW_OPTIONAL = {"gates": [{"metric": "explained_variance", "at_least": 0.5}], "review": "optional"}


@pytest.fixture
def house() -> Registry:
    return Registry(MemoryStore(), MemoryProjection(), patience_s=0)


def put_up(
    house: Registry, folder: Path, operation: str, *, ev: float = 0.8, seed: int = 0, **more: object
) -> str:
    """Judge a tiny bundle for real and promote it; gives its digest."""
    bundle = tiny_bundle(folder, seed, ev=ev)
    policy = tiny_params(promote=REVIEW_OPTIONAL).promote
    verdict = promote.judge_bundle(bundle.path, store=house.store, cache=folder / "cache", policy=policy)
    promote.run(bundle.path, verdict, registry=house, author=author(operation), **more)
    return bundle.digest


def floor(point: float, low: float, high: float, limit: float, outcome: str, n: int = 40) -> GateResult:
    value = Interval(point, low, high, n, "documents")
    return GateResult("m", f"m at least {limit:g}", value, low, outcome, "because", "at least", limit)  # type: ignore[arg-type]


# ── from the store ──────────────────────────────────────────────────────────


def test_a_name_means_the_verdict_by_which_its_champion_is_champion(house: Registry, tmp_path: Path):
    first = put_up(house, tmp_path / "a", "op1")
    put_up(house, tmp_path / "b", "op2", seed=1)
    rollback.run(NAME, to="previous", registry=house, author=author("op3"), reason="try")
    [given] = stage.run(house.store, NAME)
    assert (given.verdict.bundle, given.entry.sequence) == (first, 1)
    [second] = stage.run(house.store, NAME, sequence=2)
    assert (second.verdict.champion, second.entry.operation) == (first, "op2")
    with pytest.raises(VersionUnknown, match=r"no rollback is judged") as refusal:
        stage.run(house.store, NAME, sequence=3)
    assert f"saeops explain {NAME} --seq 1" in str(refusal.value)


def test_a_refusal_is_kept_and_found_by_name_and_by_digest(house: Registry, tmp_path: Path):
    with pytest.raises(GateRefused) as refusal:
        put_up(house, tmp_path / "bad", "op1", ev=0.3)
    [given] = stage.run(house.store, NAME)
    assert (given.verdict.outcome, given.entry) == ("fail", None)
    assert f"saeops explain {given.verdict.bundle[:12]}" in str(refusal.value)
    for reference in (given.verdict.bundle[:12], given.verdict.bundle, given.digest[:8], given.digest):
        assert stage.run(house.store, reference) == [given]
    good = put_up(house, tmp_path / "good", "op2")
    [now] = stage.run(house.store, NAME)
    assert now.verdict.bundle == good
    assert stage.run(house.store, given.digest) == [given]


def test_what_was_never_judged_is_said_to_be_so(house: Registry, tmp_path: Path):
    with pytest.raises(NameUnknown, match="has no champion"):
        stage.run(house.store, NAME)
    with pytest.raises(VersionUnknown, match="no verdict was given"):
        stage.run(house.store, "deadbeef")
    put_up(house, tmp_path, "op1")
    with pytest.raises(VersionUnknown, match="has no journal entry 2"):
        stage.run(house.store, NAME, sequence=2)
    with pytest.raises(UsageError, match="--seq"):
        stage.run(house.store, "deadbeef", sequence=1)


def test_an_edited_verdict_is_not_explained(house: Registry, tmp_path: Path):
    put_up(house, tmp_path, "op1")
    [key] = house.store.list(f"names/{NAME}/verdicts/")
    house.store.put(key, house.store.get(key).data.replace(b'"pass"', b'"fail"', 1))
    with pytest.raises(JournalBroken, match="was changed after it was given"):
        stage.run(house.store, NAME)


# ── in words ────────────────────────────────────────────────────────────────


def test_the_samples_that_would_tell_shrink_the_interval_to_the_limit():
    # Half as wide an interval would do, so four times the documents.
    assert samples_needed(floor(0.8, 0.6, 1.0, 0.7, "inconclusive")) == 160
    assert samples_needed(floor(0.65, 0.6, 0.75, 0.7, "inconclusive")) is None, "the figure itself falls short"
    ceiling = GateResult(
        "m", "m at most 3", Interval(2, 0, 4, 10, "documents"), 4, "inconclusive", "", "at most", 3
    )
    assert samples_needed(ceiling) == 40


@pytest.mark.parametrize(
    ("gate", "change"),
    [
        (floor(0.9, 0.8, 1.0, 0.7, "pass"), ""),
        (floor(0.8, 0.6, 1.0, 0.7, "inconclusive"), "about 160 documents would show it; 40 were measured"),
        (floor(0.7001, 0.6, 0.8, 0.7, "inconclusive"), "no feasible number of documents"),
        (floor(0.5, 0.4, 0.6, 0.7, "fail"), "must rise by 0.3"),
        (GateResult("m", "m at least 1", None, None, "fail", "missing", "at least", 1), "measure the figure"),
        (GateResult("m", "m", None, None, "inconclusive", "another model"), "saeops promote --force"),
        (GateResult("review", "every label", None, None, "inconclusive", "4 wait"), "saeops review decide"),
    ],
)
def test_every_outcome_says_what_would_have_to_change(gate: GateResult, change: str):
    said = explain_gate(gate)
    assert (change in said.change) if change else said.change == ""


def test_the_margin_has_the_sign_of_the_right_side():
    assert floor(0.9, 0.8, 1.0, 0.7, "pass").to_spare == pytest.approx(0.1)
    assert explain_gate(floor(0.5, 0.4, 0.6, 0.7, "fail")).to_spare == "-0.3"


def test_a_whole_verdict_in_words_counts_only_what_counts(house: Registry, tmp_path: Path):
    bundle = tiny_bundle(tmp_path, ev=0.8)
    gates = [
        {"metric": "explained_variance", "at_least": 0.5, "not_worse_than_champion_by": 0.1},
        {"metric": "explained_variance", "at_least": 0.99, "dry_run": True},
    ]
    policy = tiny_params(promote={"gates": gates, "review": "optional"}).promote
    verdict = promote.judge_bundle(bundle.path, store=house.store, cache=tmp_path / "cache", policy=policy)
    said = explain(verdict)
    assert said.sentence == "1 of 1 requirements hold, with no champion to compare with"
    assert [gate.dry_run for gate in said.gates[:3]] == [False, False, True]
    assert said.gates[0].seen == "0.8 [0.75, 0.85]"
    assert "passes at most 2.5 times in a hundred" in said.errors


# ── the format ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize("version", [1, 2])
def test_verdicts_of_every_format_are_read(version: int):
    data = (GOLDEN / f"verdict-{version}.json").read_bytes()
    verdict = Verdict.from_json(json.loads(data))
    assert (verdict.outcome, verdict.gates[0].metric) == ("fail", "explained_variance")
    assert explain(verdict).gates
    if version == 2:
        assert verdict.to_bytes() == data, "today's format is written as it stands there"


def test_a_verdict_of_a_newer_saeops_is_refused():
    data = json.loads((GOLDEN / "verdict-2.json").read_bytes())
    with pytest.raises(FormatUnknown, match="format 3"):
        Verdict.from_json(data | {"format": 3})


def test_a_dry_run_is_never_told_as_one_that_counted_and_the_error_budget_is():
    tried = GateResult("l0", "l0 at most 3", None, None, "fail", "it is 4", dry_run=True)
    counted = GateResult("l0", "l0 at most 5", None, None, "fail", "it is 6")
    verdict = Verdict("fail", "b" * 64, None, (tried, counted), "e" * 64, PromotePolicy(family_error=0.02))
    assert verdict.explain().splitlines() == [
        "  fail (dry run) l0 at most 3: it is 4",
        "  fail           l0 at most 5: it is 6",
    ]
    said = explain(verdict)
    assert [gate.told for gate in said.gates] == ["fail (dry run)", "fail"]
    assert "misses its interval at most 2 times in a hundred" in said.errors
