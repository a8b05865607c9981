"""The walk of promotion and rollback, on the store's fake; kills: tests/contract/test_killed_operations.py."""

import json
from pathlib import Path

import pytest

from saeops.adapters.projection import MemoryProjection
from saeops.adapters.stores import LocalStore, MemoryStore, open_store
from saeops.dictionary.bundle import Bundle
from saeops.errors import (
    FolderDamaged,
    FormatUnknown,
    GateRefused,
    JournalBroken,
    LostRace,
    NameUnknown,
    UsageError,
    VersionPinned,
    VersionUnknown,
)
from saeops.ports import Found, ObjectStore
from saeops.promotion.protocol import intent
from saeops.report.contents import read_champion
from saeops.stages import promote, registry, rollback
from saeops.stages.records import append, read_state
from saeops.stages.walk import Moved, Registry, settle
from tests.bundles import NAME, author, tiny_bundle, tiny_params, verdict_on


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    return {name: tiny_bundle(tmp_path_factory.mktemp(name), seed) for seed, name in enumerate("abcd")}


@pytest.fixture(params=["memory", pytest.param("s3", marks=pytest.mark.slow)])
def house(request: pytest.FixtureRequest) -> Registry:
    store = MemoryStore() if request.param == "memory" else open_store(request.getfixturevalue("s3_address"))
    return Registry(store, MemoryProjection(), patience_s=0)


def put_up(house: Registry, bundle: Bundle, operation: str, **more: object) -> Moved:
    champion = read_state(house.store, NAME).champion
    verdict = verdict_on(bundle, champion, more.pop("outcome", "pass"))
    return promote.run(bundle.path, verdict, registry=house, author=author(operation), **more)


def back(house: Registry, operation: str, to: str = "previous", **more: object) -> Moved:
    more = {"reason": "it misfires"} | more
    return rollback.run(NAME, to=to, registry=house, author=author(operation), **more)


def champion(house: Registry) -> str | None:
    return read_state(house.store, NAME).champion


# ── promotion ───────────────────────────────────────────────────────────────


def test_a_promotion_moves_pointer_journal_and_aliases(house: Registry, bundles: dict[str, Bundle]):
    moved = put_up(house, bundles["a"], "op1", git_commit="abc123")
    assert moved.plan.from_digest is None
    assert champion(house) == bundles["a"].digest
    assert house.projection.aliases(NAME) == {"champion": bundles["a"].digest}
    found = registry.status(house.store, NAME)
    assert (found.sequence, found.who, found.git_commit, found.forced) == (1, "ada", "abc123", False)
    [row] = registry.history(house.store, NAME, verify=True)
    assert (row.action, row.outcome, row.to_digest) == ("promote", "done", bundles["a"].digest)


def test_a_report_stands_beside_the_champion_that_is_judged_beside(
    house: Registry, bundles: dict[str, Bundle], tmp_path: Path
):
    def beside(bundle: Bundle) -> Path | None:
        return promote.other_champion(bundle.path, store=house.store, cache=tmp_path)

    assert beside(bundles["a"]) is None, "there is none yet"
    put_up(house, bundles["a"], "op1")
    assert beside(bundles["a"]) is None, "this is the champion"
    copy = beside(bundles["b"])
    assert copy is not None
    assert read_champion(copy).digest == bundles["a"].digest
    assert "explained_variance" in read_champion(copy).metrics


def test_promoting_the_champion_changes_nothing_and_says_so(house: Registry, bundles: dict[str, Bundle]):
    put_up(house, bundles["a"], "op1")
    before = {key: house.store.get(key).etag for key in house.store.list("")}
    moved = put_up(house, bundles["a"], "op2")
    assert "is champion of" in moved.plan.unchanged
    assert {key: house.store.get(key).etag for key in house.store.list("")} == before


@pytest.mark.parametrize("outcome", ["fail", "inconclusive"])
def test_a_verdict_that_is_no_pass_is_refused_and_nothing_but_the_verdict_is_kept(house, bundles, outcome: str):
    with pytest.raises(GateRefused, match=f"is {outcome}"):
        put_up(house, bundles["a"], "op1", outcome=outcome)
    verdict = verdict_on(bundles["a"], None, outcome)
    assert house.store.list("") == [f"names/{NAME}/verdicts/{verdict.digest}.json"]


def test_a_refusal_goes_gate_by_gate(house: Registry, tmp_path: Path):
    bundle = tiny_bundle(tmp_path, ev=0.3)
    policy = tiny_params().promote
    verdict = promote.judge_bundle(bundle.path, store=house.store, cache=tmp_path / "cache", policy=policy)
    with pytest.raises(GateRefused) as refusal:
        promote.run(bundle.path, verdict, registry=house, author=author("op1"))
    assert "fail           explained_variance at least 0.5: even the upper bound 0.35" in str(refusal.value)
    assert "6 of 6 labels wait" in str(refusal.value)


def test_a_forced_promotion_needs_a_reason_and_shows_for_ever(house: Registry, bundles: dict[str, Bundle]):
    with pytest.raises(UsageError, match="needs a reason"):
        put_up(house, bundles["a"], "op1", outcome="fail", force=True)
    put_up(house, bundles["a"], "op1", outcome="fail", force=True, reason="demo on Friday")
    found = registry.status(house.store, NAME)
    assert (found.forced, found.forced_reason) == (True, "demo on Friday")
    put_up(house, bundles["b"], "op2")
    assert not registry.status(house.store, NAME).forced
    assert [row.forced for row in registry.history(house.store, NAME)] == [True, False]
    back(house, "op3")
    assert registry.status(house.store, NAME).forced_reason == "demo on Friday"


def test_force_on_a_passing_verdict_is_no_forced_promotion(house: Registry, bundles: dict[str, Bundle]):
    put_up(house, bundles["a"], "op1", force=True, reason="to be sure")
    assert not registry.status(house.store, NAME).forced


def test_a_verdict_beside_another_champion_is_stale(house: Registry, bundles: dict[str, Bundle]):
    verdict = verdict_on(bundles["b"], None)
    put_up(house, bundles["a"], "op1")
    with pytest.raises(LostRace, match="judged beside no champion"):
        promote.run(bundles["b"].path, verdict, registry=house, author=author("op2"))


def test_a_candidate_is_judged_beside_the_champion_s_stored_figures(house: Registry, tmp_path: Path):
    policy = tiny_params(
        promote={
            "gates": [{"metric": "explained_variance", "not_worse_than_champion_by": 0.02}],
            "review": "optional",
        }
    ).promote
    good, worse = tiny_bundle(tmp_path / "good", ev=0.9), tiny_bundle(tmp_path / "worse", ev=0.6)
    put_up(house, good, "op1")
    verdict = promote.judge_bundle(worse.path, store=house.store, cache=tmp_path / "cache", policy=policy)
    assert (verdict.outcome, verdict.champion) == ("fail", good.digest)
    assert "champion 0.9" in verdict.gates[0].reason


def test_a_dry_promotion_lists_each_change_and_makes_none(house: Registry, bundles: dict[str, Bundle]):
    moved = put_up(house, bundles["a"], "op1", dry_run=True)
    assert house.store.list("") == []
    assert f"names/{NAME}/champion.json: nothing → {bundles['a'].digest[:12]}" in moved.plan.changes


def test_an_upload_that_was_cut_off_is_completed(house: Registry, bundles: dict[str, Bundle]):
    house.store.put(f"bundles/{bundles['a'].digest}/sae/sae.json", b"half")
    put_up(house, bundles["a"], "op1")
    assert registry.verify(house.store, NAME).files == len(list(bundles["a"].path.rglob("*.*"))) - 1


# ── rollback ────────────────────────────────────────────────────────────────


def test_rollback_makes_the_previous_version_champion_and_pins_the_one_left(house, bundles):
    put_up(house, bundles["a"], "op1")
    put_up(house, bundles["b"], "op2")
    back(house, "op3", reason="b misfires")
    assert champion(house) == bundles["a"].digest
    assert house.projection.aliases(NAME) == {"champion": bundles["a"].digest, "previous": bundles["b"].digest}
    assert registry.status(house.store, NAME).pinned == {bundles["b"].digest: "b misfires"}
    with pytest.raises(VersionPinned, match="by rollback 3: b misfires"):
        put_up(house, bundles["b"], "op4", force=True, reason="I insist")


def test_a_repeated_rollback_changes_nothing_and_names_the_way_further_back(house, bundles):
    for number, name in enumerate("abc", start=1):
        put_up(house, bundles[name], f"op{number}")
    back(house, "op4")
    again = back(house, "op5")
    assert "was rolled back already" in again.plan.unchanged
    assert "--to 1 " in again.plan.unchanged
    assert champion(house) == bundles["b"].digest
    back(house, "op6", to="1")
    assert champion(house) == bundles["a"].digest
    assert set(registry.status(house.store, NAME).pinned) == {bundles["b"].digest, bundles["c"].digest}
    assert "there is no older version" in back(house, "op7").plan.unchanged


def test_the_first_champion_has_nothing_to_go_back_to(house: Registry, bundles: dict[str, Bundle]):
    with pytest.raises(NameUnknown, match="has no champion"):
        back(house, "op0")
    put_up(house, bundles["a"], "op1")
    with pytest.raises(VersionUnknown, match="nothing to go back to"):
        back(house, "op2")


@pytest.mark.parametrize("to", ["7", "deadbeef" * 8, "no such thing"])
def test_an_unknown_version_lists_the_known_ones(house: Registry, bundles: dict[str, Bundle], to: str):
    put_up(house, bundles["a"], "op1")
    put_up(house, bundles["b"], "op2")
    with pytest.raises(VersionUnknown) as error:
        back(house, "op3", to=to)
    assert f"known versions: 1 ({bundles['a'].digest[:12]}, 2026-03-01), 2 (" in str(error.value)


def test_a_stored_bundle_that_was_never_champion_here_is_no_target(house: Registry, bundles: dict[str, Bundle]):
    put_up(house, bundles["a"], "op1")
    for file in (p for p in bundles["b"].path.rglob("*") if p.is_file()):
        key = f"bundles/{bundles['b'].digest}/{file.relative_to(bundles['b'].path)}"
        house.store.put(key, file.read_bytes())
    with pytest.raises(VersionUnknown, match="was never promoted"):
        back(house, "op2", to=bundles["b"].digest)


def test_rollback_takes_a_digest_s_first_digits_and_refuses_a_pinned_target(house, bundles):
    for number, name in enumerate("abc", start=1):
        put_up(house, bundles[name], f"op{number}")
    registry.pin(house.store, NAME, "2", author=author("op4"), reason="licence")
    with pytest.raises(VersionPinned, match="by ada: licence"):
        back(house, "op5")
    back(house, "op6", to=bundles["a"].digest[:10])
    assert champion(house) == bundles["a"].digest


def test_a_dry_rollback_prints_what_the_real_one_does(house: Registry, bundles: dict[str, Bundle]):
    put_up(house, bundles["a"], "op1")
    put_up(house, bundles["b"], "op2")
    before = {key: house.store.get(key).data for key in house.store.list("")}
    plan = back(house, "op3", reason="", dry_run=True).plan
    assert {key: house.store.get(key).data for key in house.store.list("")} == before
    back(house, "op3")
    changed = {key for key in house.store.list("") if before.get(key) != house.store.get(key).data}
    assert changed == {line.split(": ")[0] for line in plan.changes if line.startswith("names/")}


def test_a_rollback_without_a_reason_is_refused(house: Registry, bundles: dict[str, Bundle]):
    put_up(house, bundles["a"], "op1")
    with pytest.raises(UsageError, match="needs a reason"):
        back(house, "op2", reason=" ")


def test_unpinned_versions_may_be_champion_again(house: Registry, bundles: dict[str, Bundle]):
    put_up(house, bundles["a"], "op1")
    put_up(house, bundles["b"], "op2")
    back(house, "op3")
    assert registry.unpin(house, NAME, "previous", author=author("op4")) == bundles["b"].digest
    put_up(house, bundles["b"], "op5")
    assert champion(house) == bundles["b"].digest
    assert registry.status(house.store, NAME).pinned == {}


def test_a_pin_can_name_a_bundle_that_was_never_champion(house: Registry, bundles: dict[str, Bundle]):
    put_up(house, bundles["a"], "op1")
    for file in (p for p in bundles["b"].path.rglob("*") if p.is_file()):
        key = f"bundles/{bundles['b'].digest}/{file.relative_to(bundles['b'].path)}"
        house.store.put(key, file.read_bytes())
    registry.pin(house.store, NAME, bundles["b"].digest, author=author("op2"), reason="leaks names")
    with pytest.raises(VersionPinned, match="leaks names"):
        put_up(house, bundles["b"], "op3")


# ── the projection ──────────────────────────────────────────────────────────


class BrokenProjection(MemoryProjection):
    def register(self, *args: object, **more: object) -> None:
        raise ConnectionError("nobody home")

    aliases = register  # type: ignore[assignment]


def test_a_projection_that_is_down_is_reported_and_stops_nothing(bundles: dict[str, Bundle]):
    house = Registry(MemoryStore(), BrokenProjection(), patience_s=0)
    moved = put_up(house, bundles["a"], "op1")
    assert moved.projection_problem == "ConnectionError: nobody home"
    put_up(house, bundles["b"], "op2")
    assert back(house, "op3").projection_problem
    assert champion(house) == bundles["a"].digest
    assert [row.outcome for row in registry.history(house.store, NAME)] == ["done"] * 3


# ── races ───────────────────────────────────────────────────────────────────


def leave_open(house: Registry, bundle: Bundle, operation: str) -> None:
    """An intent whose owner is gone, or slow."""
    state = read_state(house.store, NAME)
    entry = intent(state, author(operation, who="bob"), action="promote", to_digest=bundle.digest, reason="")
    assert append(house.store, entry) is not None


def test_an_intent_left_open_is_voided_by_the_next_caller(house: Registry, bundles: dict[str, Bundle]):
    leave_open(house, bundles["b"], "gone")
    put_up(house, bundles["a"], "op1")
    rows = registry.history(house.store, NAME, verify=False)
    assert [(row.outcome, row.who) for row in rows] == [("void", "bob"), ("done", "ada")]


def test_others_wait_for_an_open_intent_before_they_void_it(house: Registry, bundles: dict[str, Bundle]):
    put_up(house, bundles["a"], "op1")
    leave_open(house, bundles["b"], "slow")
    pauses: list[float] = []
    patient = Registry(house.store, house.projection, patience_s=0.2, pause=pauses.append)
    put_up(patient, bundles["c"], "op3")
    assert sum(pauses) >= 0.2
    assert champion(house) == bundles["c"].digest


class SlowVerify(MemoryStore):
    """Runs something in the middle of an operation: before the first byte of a bundle's manifest is read."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile = lambda: None

    def list(self, prefix: str) -> "list[str]":
        if prefix.startswith("bundles/"):
            run, self.meanwhile = self.meanwhile, lambda: None
            run()
        return super().list(prefix)


def test_a_slow_owner_whose_intent_was_voided_cannot_move_the_pointer(bundles: dict[str, Bundle]):
    house = Registry(SlowVerify(), MemoryProjection(), patience_s=0)
    put_up(house, bundles["a"], "op1")
    house.store.meanwhile = lambda: put_up(house, bundles["c"], "quick")
    with pytest.raises(LostRace, match="voided this operation while it ran"):
        put_up(house, bundles["b"], "slow")
    assert champion(house) == bundles["c"].digest
    assert [row.outcome for row in registry.history(house.store, NAME)] == ["done", "void", "done"]


def test_a_slow_first_promotion_is_fenced_although_there_is_no_pointer_yet(bundles: dict[str, Bundle]):
    house = Registry(SlowVerify(), MemoryProjection(), patience_s=0)
    house.store.meanwhile = lambda: settle(house, NAME, author("quick"))
    with pytest.raises(LostRace, match="voided this operation"):
        put_up(house, bundles["a"], "slow")
    assert champion(house) is None
    with pytest.raises(NameUnknown):
        registry.status(house.store, NAME)
    put_up(house, bundles["a"], "again")
    assert champion(house) == bundles["a"].digest


def test_whoever_is_second_into_the_journal_lost_the_race(house: Registry, bundles: dict[str, Bundle]):
    class Overtaken(MemoryStore):
        overtake = None

        def put(self, key: str, data: bytes, **conditions: object) -> str | None:
            if "/journal/" in key and self.overtake:
                run, self.overtake = self.overtake, None
                run()
            return super().put(key, data, **conditions)

    house = Registry(Overtaken(), MemoryProjection(), patience_s=0)
    put_up(house, bundles["a"], "op1")
    house.store.overtake = lambda: put_up(house, bundles["b"], "first")
    with pytest.raises(LostRace, match=f"was first; champion: {bundles['b'].digest[:12]}"):
        put_up(house, bundles["c"], "second")
    assert [row.outcome for row in registry.history(house.store, NAME)] == ["done", "done"]


class EchoStore(MemoryStore):
    """Writes, then says the condition did not hold: as after a retry whose first answer was lost."""

    def put(self, key: str, data: bytes, **conditions: object) -> str | None:
        wrote = super().put(key, data, **conditions)
        return None if conditions and "names/" in key else wrote


def test_a_refusal_that_echoes_our_own_write_is_read_back_and_not_believed(bundles: dict[str, Bundle]):
    house = Registry(EchoStore(), MemoryProjection(), patience_s=0)
    put_up(house, bundles["a"], "op1")
    put_up(house, bundles["b"], "op2")
    assert champion(house) == bundles["b"].digest
    assert [row.outcome for row in registry.history(house.store, NAME)] == ["done", "done"]


# ── integrity ───────────────────────────────────────────────────────────────


def damage(store: ObjectStore, key: str) -> None:
    found = store.get(key)
    assert found is not None
    store.put(key, bytes([found.data[0] ^ 1]) + found.data[1:])


def test_a_target_with_one_byte_changed_is_refused_by_rollback_verify_and_promote(house, bundles):
    put_up(house, bundles["a"], "op1")
    put_up(house, bundles["b"], "op2")
    damage(house.store, f"bundles/{bundles['a'].digest}/labels/labels.parquet")
    for attempt in (
        lambda: back(house, "op3", dry_run=True),
        lambda: back(house, "op4"),
        lambda: registry.verify(house.store, bundles["a"].digest),
        lambda: put_up(house, bundles["a"], "op5"),
    ):
        with pytest.raises(FolderDamaged, match=r"labels/labels\.parquet"):
            attempt()
    assert champion(house) == bundles["b"].digest
    assert [row.outcome for row in registry.history(house.store, NAME)] == ["done", "done", "void", "void"]
    assert registry.status(house.store, NAME).pinned == {}


@pytest.mark.parametrize("change", ["missing", "extra", "truncated", "manifest"])
def test_verify_finds_files_missing_extra_and_cut(house: Registry, bundles: dict[str, Bundle], change: str):
    put_up(house, bundles["a"], "op1")
    prefix = f"bundles/{bundles['a'].digest}"
    match change:
        case "missing":
            house.store.delete(f"{prefix}/sae/sae.json")
        case "extra":
            house.store.put(f"{prefix}/sae/more.json", b"{}")
        case "truncated":
            house.store.put(f"{prefix}/sae/sae.json", house.store.get(f"{prefix}/sae/sae.json").data[:-1])
        case "manifest":
            damage(house.store, f"{prefix}/manifest.json")
    with pytest.raises(FolderDamaged, match="manifest" if change == "manifest" else "sae/"):
        registry.verify(house.store, NAME)


def edited(store: ObjectStore, key: str, **fields: object) -> None:
    found = store.get(key)
    assert isinstance(found, Found)
    store.put(key, json.dumps(json.loads(found.data) | fields).encode())


JOURNAL = f"names/{NAME}/journal/"
TAMPERINGS = {
    "an edited entry": lambda s: edited(s, f"{JOURNAL}00000001.json", reason="nothing happened"),
    "an edited last entry": lambda s: edited(s, f"{JOURNAL}00000003.json", who="somebody else"),
    "an edited closing": lambda s: edited(s, f"{JOURNAL}00000002.closed.json", outcome="void"),
    "an edited last closing": lambda s: edited(s, f"{JOURNAL}00000003.closed.json", outcome="void"),
    "a note in a closing": lambda s: edited(s, f"{JOURNAL}00000001.closed.json", note="fine"),
    "a missing entry": lambda s: s.delete(f"{JOURNAL}00000002.json"),
    "a missing closing": lambda s: s.delete(f"{JOURNAL}00000001.closed.json"),
    "a journal cut at its end": lambda s: [s.delete(f"{JOURNAL}00000003{end}.json") for end in ("", ".closed")],
    "two entries exchanged": lambda s: (
        first := s.get(f"{JOURNAL}00000001.json").data,
        s.put(f"{JOURNAL}00000001.json", s.get(f"{JOURNAL}00000002.json").data),
        s.put(f"{JOURNAL}00000002.json", first),
    ),
    "a pointer moved by hand": lambda s: edited(s, f"names/{NAME}/champion.json", digest="f" * 64),
    "a pointer deleted": lambda s: s.delete(f"names/{NAME}/champion.json"),
    "an entry that is no JSON": lambda s: s.put(f"{JOURNAL}00000002.json", b"{"),
}


@pytest.mark.parametrize("how", list(TAMPERINGS))
def test_a_journal_that_was_tampered_with_is_found_and_nothing_is_moved(house, bundles, how: str):
    for number, name in enumerate("abc", start=1):
        put_up(house, bundles[name], f"op{number}")
    TAMPERINGS[how](house.store)
    before = {key: house.store.get(key).data for key in house.store.list("")}
    for attempt in (
        lambda: registry.history(house.store, NAME, verify=True),
        lambda: registry.status(house.store, NAME),
        lambda: back(house, "op4"),
    ):
        with pytest.raises(JournalBroken, match=NAME):
            attempt()
    assert {key: house.store.get(key).data for key in house.store.list("")} == before


def test_an_edited_verdict_is_found_by_history(house: Registry, bundles: dict[str, Bundle]):
    put_up(house, bundles["a"], "op1")
    [key] = house.store.list(f"names/{NAME}/verdicts/")
    edited(house.store, key, outcome="fail")
    with pytest.raises(JournalBroken, match="verdict of journal entry 1 was changed"):
        registry.history(house.store, NAME, verify=True)


def test_a_journal_of_a_newer_saeops_is_refused(house: Registry, bundles: dict[str, Bundle]):
    put_up(house, bundles["a"], "op1")
    edited(house.store, f"{JOURNAL}00000001.json", format=2)
    with pytest.raises(FormatUnknown, match="format 2"):
        registry.status(house.store, NAME)


def test_names_that_look_like_keys_do_not_meet(tmp_path: Path, bundles: dict[str, Bundle]):
    house = Registry(LocalStore(tmp_path), MemoryProjection(), patience_s=0)
    put_up(house, bundles["a"], "op1")
    house.store.put(f"names/{NAME}/journal/champion.json", b"the pointer of another name")
    assert len(registry.history(house.store, NAME)) == 1


@pytest.mark.parametrize("name", ["../../etc", "A B", "", "x//y"])
def test_a_name_that_cannot_be_one_is_refused(house: Registry, name: str):
    with pytest.raises(NameUnknown, match="is not a dictionary's name"):
        registry.status(house.store, name)


def test_names_lists_every_name_with_a_champion(house: Registry, bundles: dict[str, Bundle]):
    put_up(house, bundles["a"], "op1")
    assert registry.names(house.store) == [NAME]
