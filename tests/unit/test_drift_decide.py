"""What the policy does next: audit, retrain once, go on, roll back, or leave it to a person."""

import datetime
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from saeops.adapters.projection import MemoryProjection
from saeops.adapters.stores import MemoryStore
from saeops.drift.policy.decide import AuditNow, RetrainNow, RollBackNow, Stay, decide, operation_id
from saeops.drift.policy.facts import Change, Facts
from saeops.drift.policy.lease import stamp
from saeops.drift.policy.machine import find_state
from saeops.errors import FormatUnknown, NameUnknown
from saeops.promotion import keys
from saeops.stages import retraining, state
from saeops.stages.records import read_state
from saeops.stages.walk import Registry
from tests.bundles import MODEL, NAME, NOW, author
from tests.changing import POLICY, START, audit_of, running, seen, wanted
from tests.drifting import promoted, recorded

V1, V2, NEW = "1" * 64, "2" * 64, "n" * 64
ROLLING_BACK = POLICY.model_copy(update={"rollback_on_drift": True})
DAY = datetime.timedelta(days=1)


def promoted_twice(**other: Any) -> Facts:
    """v2 became champion a day after v1, built on the new model, which was seen before."""
    first = Change(V1, START, "promote", 1)
    second = Change(V2, START + DAY, "promote", 2, V1)
    facts = Facts(NAME, (first, second), models=(seen(NEW, START + DAY / 2),), built_on={V1: "m" * 64, V2: NEW})
    return replace(facts, **other)


def failed_audit(after_days: float = 2, model: str = NEW, **other: Any) -> Facts:
    audit = audit_of(V2, model, "drift", START + after_days * DAY, **other)
    return promoted_twice(audits=(audit,))


# ── rollback by policy ──────────────────────────────────────────────────────


def test_an_audit_that_fails_after_a_promotion_rolls_back_where_the_policy_says_so() -> None:
    action = decide(failed_audit(), ROLLING_BACK, START + 3 * DAY)
    assert isinstance(action, RollBackNow)
    assert (action.leave, action.to) == (V2, V1)
    assert "it says drift" in action.why


def test_rollback_by_policy_is_off_by_default() -> None:
    assert not POLICY.rollback_on_drift
    assert isinstance(decide(failed_audit(), POLICY, START + 3 * DAY), RetrainNow)


def test_an_audit_long_after_the_promotion_does_not_roll_it_back() -> None:
    late = 1 + POLICY.rollback_within_days
    assert isinstance(decide(failed_audit(late), ROLLING_BACK, START + 30 * DAY), RollBackNow)
    assert isinstance(decide(failed_audit(late + 0.01), ROLLING_BACK, START + 30 * DAY), RetrainNow)


def test_drift_on_a_model_that_came_after_the_promotion_calls_for_a_retrain_not_for_the_version_before() -> None:
    facts = failed_audit(model="o" * 64)
    later = replace(facts, models=(*facts.models, seen("o" * 64, START + 1.5 * DAY)))
    assert isinstance(decide(later, ROLLING_BACK, START + 3 * DAY), RetrainNow)


def test_there_is_no_way_back_from_the_first_version_to_a_pinned_one_or_from_a_rollback() -> None:
    facts = failed_audit()
    first = replace(facts, changes=(replace(facts.champion, previous=None),))
    pinned = replace(facts, pinned={V1: START})
    rolled_back = replace(facts, changes=(*facts.changes[:-1], replace(facts.champion, action="rollback")))
    for each in (first, pinned, rolled_back):
        assert not isinstance(decide(each, ROLLING_BACK, START + 3 * DAY), RollBackNow)


@pytest.mark.parametrize("outcome", ["ok", "warn"])
def test_an_audit_that_does_not_fail_rolls_nothing_back(outcome: str) -> None:
    audit = audit_of(V2, NEW, outcome, START + 2 * DAY)  # type: ignore[arg-type]
    policy = ROLLING_BACK.model_copy(update={"on_outcome": "warn"})
    assert not isinstance(decide(promoted_twice(audits=(audit,)), policy, START + 3 * DAY), RollBackNow)


# ── retrains ────────────────────────────────────────────────────────────────


def test_a_drifting_champion_is_retrained_warm_unless_too_much_changed() -> None:
    warm = decide(failed_audit(), POLICY, START + 3 * DAY)
    assert warm == RetrainNow(operation_id(NAME, V2, NEW), NEW, f"models/{NEW[:4]}", False, warm.why)
    fresh = decide(failed_audit(fresh_start=True), POLICY, START + 3 * DAY)
    assert isinstance(fresh, RetrainNow)
    assert fresh.fresh_start


def test_asking_ten_times_asks_for_the_same_operation() -> None:
    asked = {decide(failed_audit(), POLICY, START + day * DAY).operation for day in range(3, 13)}  # type: ignore[union-attr]
    assert len(asked) == 1
    assert operation_id(NAME, V1, NEW) not in asked


def test_a_warning_calls_for_a_retrain_where_the_policy_says_so() -> None:
    facts = promoted_twice(audits=(audit_of(V2, NEW, "warn", START + 2 * DAY),))
    assert isinstance(decide(facts, POLICY, START + 3 * DAY), Stay)
    policy = POLICY.model_copy(update={"on_outcome": "warn"})
    assert isinstance(decide(facts, policy, START + 3 * DAY), RetrainNow)


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        ({"outcome": "failed", "note": "no room left"}, "no room left"),
        ({"outcome": "done", "candidate": "c" * 64, "verdict_outcome": "fail"}, "the judge refused"),
    ],
)
def test_a_model_is_retrained_for_once_and_then_a_person_decides(ended: dict[str, str], said: str) -> None:
    run = running("op", START + 2.1 * DAY, NEW)
    run = run.model_copy(update={"finished": stamp(START + 2.2 * DAY), **ended})
    facts = replace(failed_audit(), retraining=run)
    action = decide(facts, POLICY, START + 3 * DAY)
    assert isinstance(action, Stay)
    assert said in action.why
    assert find_state(facts, POLICY, START + 3 * DAY).state == "drifting"


def test_a_later_audit_that_fails_again_is_retrained_for_again() -> None:
    run = running("op", START + 1.5 * DAY, NEW)
    run = run.model_copy(update={"finished": stamp(START + 1.6 * DAY), "outcome": "failed", "note": "no room"})
    assert isinstance(decide(replace(failed_audit(), retraining=run), POLICY, START + 3 * DAY), RetrainNow)


def test_a_retrain_whose_heart_stopped_is_gone_on_with_under_its_own_operation() -> None:
    facts = replace(failed_audit(), retraining=running("op", START + 2.5 * DAY, NEW))
    assert isinstance(decide(facts, POLICY, START + 2.5 * DAY), Stay)
    assert decide(facts, POLICY, START + 2.5 * DAY, holder="ada").operation == "op"  # type: ignore[union-attr]
    action = decide(facts, POLICY, START + 3 * DAY)
    assert isinstance(action, RetrainNow)
    assert action.operation == "op"
    assert "without a sign of life" in action.why


def test_an_audit_that_is_due_is_made_on_the_newest_model() -> None:
    first = (Change(V1, START, "promote", 1),)
    due = Facts(NAME, first, built_on={V1: "m" * 64})
    assert decide(due, POLICY, START + 40 * DAY) == AuditNow(None, find_state(due, POLICY, START + 40 * DAY).why)
    models = (seen("o" * 64, START + DAY), seen(NEW, START + 2 * DAY))
    action = decide(replace(due, models=models), POLICY, START + 3 * DAY)
    assert isinstance(action, AuditNow)
    assert action.model_ref == f"models/{NEW[:4]}"


def test_without_a_calendar_only_a_new_model_makes_an_audit_due() -> None:
    policy = POLICY.model_copy(update={"audit_every_days": None})
    facts = Facts(NAME, (Change(V1, START, "promote", 1),), built_on={V1: "m" * 64})
    assert isinstance(decide(facts, policy, START + 4000 * DAY), Stay)
    new = replace(facts, models=(seen(NEW, START + DAY),))
    assert isinstance(decide(new, policy, START + 2 * DAY), AuditNow)


def test_where_nobody_knows_what_a_champion_was_built_on_only_models_seen_later_are_new() -> None:
    facts = replace(promoted_twice(), built_on={})
    assert isinstance(decide(facts, POLICY, START + 2 * DAY), Stay)
    later = replace(facts, models=(*facts.models, seen("o" * 64, START + 1.5 * DAY)))
    assert isinstance(decide(later, POLICY, START + 2 * DAY), AuditNow)


# ── on a real registry ──────────────────────────────────────────────────────


def minutes(count: float) -> datetime.datetime:
    return NOW + datetime.timedelta(minutes=count)


def test_the_story_of_a_name_is_read_from_its_records(tmp_path: Path) -> None:
    """Promoted, a new model, drift, retrain, candidate, promoted, failed audit, rolled back, and what remains."""
    store, house = MemoryStore(), Registry(MemoryStore(), MemoryProjection(), patience_s=0)
    house = replace(house, store=store)
    told: list[str] = []

    def look(at: float) -> str:
        told.append(state.where(store, NAME, ROLLING_BACK, minutes(at)).finding.state)
        return told[-1]

    v1 = promoted(store, tmp_path, "a")
    assert look(1) == "promoted"
    store.put(keys.model_key(NAME, NEW), seen(NEW, minutes(2)).to_bytes())
    assert look(3) == "audit due"
    recorded(store, audit_of(v1, NEW, "drift", minutes(4)))
    action = state.next_action(store, NAME, ROLLING_BACK, minutes(5))
    assert isinstance(action, RetrainNow)
    assert look(5) == "drifting"
    taking = retraining.acquire(store, wanted(action.operation, model=action.model), POLICY, minutes(6))
    assert look(7) == "retraining"
    retraining.finish(store, taking.run, minutes(8), candidate="c" * 64)
    assert look(9) == "candidate waiting"
    v2 = promoted(store, tmp_path, "b", minutes=10, model=NEW)
    assert look(11) == "promoted"
    recorded(store, audit_of(v2, NEW, "drift", minutes(12), same_model=True))
    back = state.next_action(store, NAME, ROLLING_BACK, minutes(13))
    assert isinstance(back, RollBackNow)
    moved = state.roll_back(house, NAME, back, author("back", minutes=14))
    assert moved is not None
    found = read_state(store, NAME)
    assert found.champion == v1
    assert list(found.pinned) == [v2]
    assert "by policy" in found.pinned[v2].reason
    assert look(15) == "drifting"
    assert isinstance(state.next_action(store, NAME, ROLLING_BACK, minutes(16)), Stay)
    history = state.where(store, NAME, ROLLING_BACK, minutes(17)).spells
    assert [spell.state for spell in history] == [
        *("promoted", "audit due", "drifting", "retraining", "candidate waiting"),
        *("promoted", "drifting"),
    ]
    assert history[3].until - history[3].since == datetime.timedelta(minutes=2)


def test_a_rollback_by_policy_is_safe_to_repeat_and_leaves_another_champion_alone(tmp_path: Path) -> None:
    store = MemoryStore()
    house = Registry(store, MemoryProjection(), patience_s=0)
    v1, v2 = promoted(store, tmp_path, "a"), promoted(store, tmp_path, "b", minutes=1)
    action = RollBackNow(leave=v2, to=v1, why="drift")
    assert state.roll_back(house, NAME, action, author("one", minutes=2)) is not None
    again = state.roll_back(house, NAME, action, author("two", minutes=3))
    assert again is not None
    assert again.plan.unchanged
    v3 = promoted(store, tmp_path, "c", minutes=4)
    assert state.roll_back(house, NAME, action, author("three", minutes=5)) is None
    assert read_state(store, NAME).champion == v3


def test_facts_know_the_model_that_a_champion_was_built_on(tmp_path: Path) -> None:
    store = MemoryStore()
    v1 = promoted(store, tmp_path, "a")
    assert state.facts(store, NAME).built_on == {v1: MODEL}


def test_a_name_without_champion_has_no_state() -> None:
    with pytest.raises(NameUnknown, match="no champion"):
        state.where(MemoryStore(), NAME, POLICY, NOW)


def test_records_of_a_newer_format_are_refused(tmp_path: Path) -> None:
    store = MemoryStore()
    promoted(store, tmp_path, "a")
    key = keys.model_key(NAME, NEW)
    store.put(key, seen(NEW, NOW).to_bytes().replace(b'"format":1', b'"format":2'))
    with pytest.raises(FormatUnknown, match="format 2"):
        state.facts(store, NAME)
