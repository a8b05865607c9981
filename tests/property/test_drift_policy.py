"""The policy's states, over every order of what can happen to a name."""

import datetime
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saeops.drift.policy.decide import AuditNow, RetrainNow, RollBackNow, Stay, decide
from saeops.drift.policy.facts import Facts, moment
from saeops.drift.policy.machine import STATES, StateName, find_state, situation, spells
from tests.changing import EVENTS, POLICY, World

PAGE = Path(__file__).parents[2] / "docs" / "retraining.md"
RECORDS = {"promoted", "healthy", "audit due", "drifting"}
DEPTH = 4
"""Every cell of the table is reached by so many events."""

Cell = tuple[str, str]


def drawn() -> dict[Cell, set[str]]:
    """(state, event) → states that may follow, as docs/retraining.md says."""
    lines = PAGE.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| from |"))
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines[start : start + 2 + len(STATES)]
    ]
    events = rows[0][1:]
    assert events == list(EVENTS)
    cells = {(row[0], event): row[1:][i] for row in rows[2:] for i, event in enumerate(events)}
    return {cell: _states(said) for cell, said in cells.items() if said != "-"}


def _states(said: str) -> set[str]:
    return RECORDS if said == "records" else set(re.split(r", ", said))


def name_of(world: World) -> StateName:
    return find_state(world.facts, POLICY, world.now).state


def steps(depth: int) -> Iterator[tuple[World, str, World]]:
    """Every step of every order of so many events."""
    worlds = [World.after_first_promotion()]
    for _ in range(depth):
        following = []
        for world in worlds:
            for event, happens in EVENTS.items():
                after = happens(world)
                if after is not None:
                    yield world, event, after
                    following.append(after)
        worlds = following


def after(events: Sequence[str]) -> World:
    """The world after these events, those left out that cannot happen."""
    world = World.after_first_promotion()
    for event in events:
        world = EVENTS[event](world) or world
    return world


orders = st.lists(st.sampled_from(sorted(EVENTS)), max_size=14)


def test_every_transition_that_can_happen_is_drawn_and_every_drawn_one_can_happen() -> None:
    found = defaultdict(set)
    for before, event, then in steps(DEPTH):
        found[name_of(before), event].add(name_of(then))
    assert dict(found) == drawn()


@given(orders)
def test_no_longer_story_leaves_the_drawing(events: list[str]) -> None:
    table, world = drawn(), World.after_first_promotion()
    for event in events:
        then = EVENTS[event](world)
        if then is not None:
            assert name_of(then) in table[name_of(world), event]
            world = then


def conditions(facts: Facts, now: datetime.datetime) -> dict[str, bool]:
    """When a name is in each state, said of each state alone: written without the order that the code asks in."""
    run, champion = facts.retraining, facts.champion
    audits = [audit for audit in facts.audits if audit.bundle == champion.digest]
    runs = run is not None and run.outcome == "none"
    promotions = [change for change in facts.changes if change.action == "promote"]
    candidate = (
        run is not None
        and run.outcome == "done"
        and run.verdict_outcome != "fail"
        and run.candidate not in facts.pinned
        and run.candidate != champion.digest
        and all(change.at < moment(run.finished or "") for change in promotions)
    )
    model = facts.models[-1].digest if facts.models else None
    new = (
        model is not None
        and model != facts.built_on[champion.digest]
        and model not in {audit.model for audit in audits}
    )
    drift = bool(audits) and audits[-1].outcome == "drift"
    last = max([champion.at, *(moment(audit.at) for audit in audits)])
    old = now - last >= datetime.timedelta(days=POLICY.audit_every_days or 0)
    idle = not runs and not candidate
    return {
        "retraining": runs,
        "candidate waiting": candidate and not runs,
        "audit due": idle and (new or (old and not drift)),
        "drifting": idle and drift and not new,
        "promoted": idle and not new and not old and not audits,
        "healthy": idle and not new and not old and bool(audits) and not drift,
    }


@given(orders)
def test_every_world_that_can_be_reached_is_in_exactly_one_state(events: list[str]) -> None:
    world = after(events)
    holding = [state for state, holds in conditions(world.facts, world.now).items() if holds]
    assert holding == [name_of(world)]


@given(orders, st.integers(0, 10**7))
def test_the_history_of_states_has_no_gap_and_ends_with_the_state_of_now(events: list[str], more_s: int) -> None:
    world = after(events)
    now = world.now + datetime.timedelta(seconds=more_s)
    found = situation(world.facts, POLICY, now)
    assert found.spells[0].since == world.facts.changes[0].at
    assert found.spells[-1].until == now
    assert found.spells[-1].state == found.finding.state == find_state(world.facts, POLICY, now).state
    assert found.since <= now
    for one, two in zip(found.spells, found.spells[1:], strict=False):
        assert one.until == two.since
        assert one.state != two.state
        assert one.since < one.until


@given(orders)
def test_the_history_holds_the_state_of_every_step_that_the_records_still_tell(events: list[str]) -> None:
    """Of retrains the registry keeps the last one: a story with one retrain is remembered whole."""
    world, states = World.after_first_promotion(), []
    for event in events:
        if event == "retrain begins" and world.facts.retraining is not None:
            continue
        then = EVENTS[event](world)
        if then is not None:
            states.append((then.now, name_of(then)))
            world = then
    history = spells(world.facts, POLICY, world.now)
    for at, state in states:
        assert state == [spell.state for spell in history if spell.since <= at][-1]


@given(orders)
def test_the_policy_acts_where_its_state_says_so_and_nowhere_else(events: list[str]) -> None:
    world = after(events)
    action, state = decide(world.facts, POLICY, world.now), name_of(world)
    assert not isinstance(action, RollBackNow)
    assert isinstance(action, AuditNow) == (state == "audit due")
    if isinstance(action, RetrainNow):
        assert state in ("drifting", "retraining")
    if state in ("healthy", "promoted", "candidate waiting"):
        assert isinstance(action, Stay)


@given(orders)
def test_a_rollback_by_policy_only_leaves_a_promoted_champion_whose_own_audit_failed(events: list[str]) -> None:
    world = after(events)
    action = decide(world.facts, POLICY.model_copy(update={"rollback_on_drift": True}), world.now)
    if isinstance(action, RollBackNow):
        champion = world.facts.champion
        assert champion.action == "promote"
        assert (action.leave, action.to) == (champion.digest, champion.previous)
        assert world.facts.last_audit is not None
        assert world.facts.last_audit.outcome == "drift"
        assert action.to not in world.facts.pinned


def test_a_record_from_a_clock_that_is_ahead_counts_as_from_now() -> None:
    world = after(["audit ok", "new model"])
    found = situation(world.facts, POLICY, world.now - datetime.timedelta(days=2))
    assert found.finding.state == found.spells[-1].state == "audit due"


@pytest.mark.parametrize("state", STATES)
def test_every_state_says_why_and_what_to_do(state: StateName) -> None:
    for _, _, world in steps(DEPTH):
        finding = find_state(world.facts, POLICY, world.now)
        if finding.state == state:
            assert finding.why
            assert finding.next
            return
    raise AssertionError(f"no story reaches {state}")
