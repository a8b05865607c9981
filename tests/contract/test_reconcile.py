"""Reconcile: whatever happens to MLflow, its copy tells the truth again. One suite for every copy."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from saeops.adapters.projection import MemoryProjection, MlflowProjection
from saeops.adapters.stores import LocalStore
from saeops.dictionary.bundle import Bundle
from saeops.errors import FolderDamaged, GateRefused, NameUnknown, TrackerUnreachable
from saeops.ports import ObjectStore
from saeops.promotion import keys
from saeops.promotion.projection import Retag
from saeops.promotion.retention import removal
from saeops.stages import projecting, promote, reconcile, registry, rollback
from saeops.stages.reconcile import Reconciled
from saeops.stages.records import read_state
from saeops.stages.walk import Moved, Registry, Untold
from tests.bundles import NAME, author, tiny_bundle, verdict_on
from tests.hands import Hand, MemoryHand, PostgresHand, SqliteHand
from tests.mlflow_server import MlflowServer
from tests.postgres import Postgres
from tests.runbook import in_checkout, said_by


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    return {name: tiny_bundle(tmp_path_factory.mktemp(name), seed) for seed, name in enumerate("abcd")}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tracking") / "mlflow.db"


@dataclass
class House:
    """A registry with its copy, and somebody who meddles with the copy."""

    registry: Registry
    hand: Hand
    cache: Path

    @property
    def store(self) -> ObjectStore:
        return self.registry.store

    def put_up(self, bundle: Bundle, operation: str, *, told: bool = True, outcome: str = "pass") -> Moved:
        verdict = verdict_on(bundle, read_state(self.store, NAME).champion, outcome)
        house = self.registry if told else Registry(self.store, Untold(), patience_s=0)
        return promote.run(bundle.path, verdict, registry=house, author=author(operation))

    def back(self, operation: str) -> Moved:
        alone = Registry(self.store, Untold(), patience_s=0)
        return rollback.run(NAME, registry=alone, author=author(operation), reason="it misfires")

    def announce(self, bundle: Bundle) -> None:
        to = self.registry.projection
        projecting.announce(self.store, to, NAME, bundle.digest, bundle.path, params="p" * 64)

    def reconcile(self, *, dry_run: bool = False) -> Reconciled:
        return reconcile.run(self.registry, NAME, cache=self.cache, author=author("rec"), dry_run=dry_run)

    def mended(self) -> list[str]:
        """What reconcile did, once a dry run said the same and a second run found nothing."""
        foretold = [str(repair) for repair in self.reconcile(dry_run=True).repairs]
        did = [str(repair) for repair in self.reconcile().repairs]
        assert did == foretold
        assert self.reconcile().repairs == ()
        return did

    @property
    def aliases(self) -> dict[str, str]:
        return self.registry.projection.aliases(NAME)


@pytest.fixture(params=["memory", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("sqlite", "server"))])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> House:
    """Each test begins with a copy that shows nothing of the name."""
    projection: MemoryProjection | MlflowProjection
    if request.param == "memory":
        projection = MemoryProjection()
        hand: Hand = MemoryHand(projection, NAME)
    elif request.param == "sqlite":
        database: Path = request.getfixturevalue("database")
        projection = MlflowProjection(f"sqlite:///{database}", "reconcile", artifacts=database.parent / "files")
        hand = SqliteHand(projection, NAME, tmp_path, database)
    else:
        server: MlflowServer = request.getfixturevalue("mlflow_server")
        postgres: Postgres = request.getfixturevalue("postgres_server")
        projection = MlflowProjection(server.address, "reconcile", artifacts=tmp_path / "unused")
        hand = PostgresHand(projection, NAME, tmp_path, postgres)
    hand.delete_name()
    return House(Registry(LocalStore(tmp_path / "store"), projection, patience_s=0), hand, tmp_path / "cache")


@pytest.fixture
def told(house: House, bundles: dict[str, Bundle]) -> House:
    """a was champion and b is; the copy knows."""
    house.put_up(bundles["a"], "op1")
    house.put_up(bundles["b"], "op2")
    return house


def short(bundle: Bundle) -> str:
    return bundle.digest[:12]


# ── what is shown ───────────────────────────────────────────────────────────


def test_a_promotion_shows_versions_aliases_tags_and_the_journals_link(told: House, bundles: dict[str, Bundle]):
    a, b = bundles["a"].digest, bundles["b"].digest
    shown = told.registry.projection.shown(NAME)
    assert [version.digest for version in shown.versions] == [a, b]
    assert shown.digests() == {"champion": b, "previous": a}
    state = read_state(told.store, NAME)
    first, second = state.journal.steps
    assert shown.version_of(a).tags == {
        "digest": a,
        "sequence": "1",
        "operation": "op1",
        "forced": "false",
        "verdict": first.entry.verdict,
        "journal": f"names/{NAME}/journal/00000001.json",
        "entry": first.entry_sha256,
        "link": "0" * 64,
    }
    of_name = {tag: value for tag, value in shown.tags.items() if tag != "saeops.name"}
    assert of_name == {
        "action": "promote",
        "sequence": "2",
        "operation": "op2",
        "at": second.entry.at,
        "who": "ada",
        "journal": f"names/{NAME}/journal/00000002.json",
        "entry": second.entry_sha256,
        "link": second.entry.previous,
    }
    assert told.mended() == []


def test_a_candidate_is_shown_and_moves_on_when_it_is_promoted(told: House, bundles: dict[str, Bundle]):
    a, b, c = (bundles[name].digest for name in "abc")
    told.announce(bundles["c"])
    assert told.aliases == {"candidate": c, "champion": b, "previous": a}
    assert told.mended() == [], "a candidate that waits is no divergence"
    told.put_up(bundles["c"], "op3")
    assert told.aliases == {"champion": c, "previous": b}
    version = told.registry.projection.shown(NAME).version_of(c)
    assert version.tags["sequence"] == "3", "announced first, it gets the tags of its promotion"
    assert version.tags["saeops.params"] == "p" * 64
    told.announce(bundles["c"])
    assert "candidate" not in told.aliases, "a champion is no candidate"


def test_a_candidate_that_fails_is_no_candidate_any_more_and_one_that_waits_is(
    told: House, bundles: dict[str, Bundle]
):
    for outcome, expected in (("inconclusive", {"candidate"}), ("fail", set())):
        told.announce(bundles["c"])
        with pytest.raises(GateRefused):
            told.put_up(bundles["c"], "op3", outcome=outcome)
        assert set(told.aliases) - {"champion", "previous"} == expected
    version = told.registry.projection.shown(NAME).version_of(bundles["c"].digest)
    assert version.tags["refused"] == verdict_on(bundles["c"], bundles["b"].digest, "fail").digest
    told.put_up(bundles["c"], "op4")
    assert "refused" not in told.registry.projection.shown(NAME).version_of(bundles["c"].digest).tags


def test_a_candidate_that_failed_while_nobody_listened_is_taken_down_later(
    told: House, bundles: dict[str, Bundle]
):
    told.announce(bundles["c"])
    with pytest.raises(GateRefused):
        told.put_up(bundles["c"], "op3", told=False, outcome="fail")
    assert told.mended() == [f"alias candidate: {short(bundles['c'])} → nothing"]


# ── what hands do ───────────────────────────────────────────────────────────


def test_aliases_moved_and_deleted_by_hand_go_back(told: House, bundles: dict[str, Bundle]):
    a, b = short(bundles["a"]), short(bundles["b"])
    told.hand.point("champion", 1)
    told.hand.point("candidate", 2)
    told.hand.point("previous", None)
    assert told.mended() == [
        f"alias candidate: {b} → nothing",
        f"alias champion: {a} → {b}",
        f"alias previous: nothing → {a}",
    ]
    assert told.aliases == {"champion": bundles["b"].digest, "previous": bundles["a"].digest}


@pytest.mark.parametrize(("number", "alias"), [(2, "champion"), (1, "previous")])
def test_a_deleted_version_comes_back_with_the_alias_it_took_along(
    told: House, bundles: dict[str, Bundle], number: int, alias: str
):
    told.hand.delete_version(number)
    assert alias not in told.aliases, "deleting a version drops its alias without a word"
    lost = bundles["ab"[number - 1]]
    assert told.mended() == [
        f"version {short(lost)} of entry {number}: missing → registered",
        f"alias {alias}: nothing → {short(lost)}",
    ]
    assert told.aliases == {"champion": bundles["b"].digest, "previous": bundles["a"].digest}


def test_a_deleted_old_version_comes_back_too(told: House, bundles: dict[str, Bundle]):
    told.put_up(bundles["c"], "op3")
    told.hand.delete_version(1)
    assert told.mended() == [f"version {short(bundles['a'])} of entry 1: missing → registered"]


def test_a_deleted_name_is_made_again_from_the_store(told: House, bundles: dict[str, Bundle]):
    told.hand.delete_name()
    assert told.aliases == {}
    did = told.mended()
    a, b = short(bundles["a"]), short(bundles["b"])
    assert did[:2] == [f"version {d} of entry {n}: missing → registered" for n, d in ((1, a), (2, b))]
    assert did[2].startswith("tags of the name: action nothing → promote, sequence nothing → 2")
    assert did[3:] == [f"alias champion: nothing → {b}", f"alias previous: nothing → {a}"]


def test_edited_tags_are_put_right_and_peoples_own_are_left(told: House, bundles: dict[str, Bundle]):
    b = bundles["b"].digest
    told.hand.tag(2, "digest", "0" * 64)
    told.hand.tag(2, "forced", "true")
    told.hand.tag(2, "operation", None)
    told.hand.tag(2, "team", "interpretability")
    told.hand.tag(None, "who", "eve")
    assert told.mended() == [
        "tags of the name: who eve → ada",
        f"tags of version {b[:12]}: digest 000000000000 → {b[:12]}, operation nothing → op2, forced true → false",
    ]
    assert told.registry.projection.shown(NAME).version_of(b).tags["team"] == "interpretability"


def test_a_foreign_version_never_stays_champion_and_is_never_deleted(told: House, bundles: dict[str, Bundle]):
    number = told.hand.make_version()
    told.hand.point("champion", number)
    told.hand.point("candidate", number)
    told.hand.point("production", number)
    told.hand.tag(number, "digest", bundles["b"].digest)
    foreign = f"version {number}, which was not made from a bundle"
    assert told.mended() == [
        f"alias candidate: {foreign} → nothing",
        f"alias champion: {foreign} → {short(bundles['b'])}",
    ]
    assert told.reconcile().left == (
        f"version {number} stays: it was not made from a bundle",
        f"alias production stays on version {number}: the registry keeps candidate, champion, previous alone",
    )
    assert told.registry.projection.shown(NAME).aliases["production"] == number


# ── what happens to MLflow ──────────────────────────────────────────────────


def test_a_copy_restored_from_yesterday_catches_up(told: House, bundles: dict[str, Bundle]):
    told.hand.back_up()
    told.put_up(bundles["c"], "op3")
    told.back("op4")
    told.put_up(bundles["d"], "op5")
    told.hand.restore()
    assert told.aliases["champion"] == bundles["b"].digest, "and so it is once more, with another past"
    did = told.mended()
    b, c, d = (short(bundles[name]) for name in "bcd")
    assert did[:2] == [f"version {x} of entry {n}: missing → registered" for n, x in ((3, c), (5, d))]
    assert "sequence 2 → 5" in did[2]
    assert did[3:] == [f"alias champion: {b} → {d}", f"alias previous: {short(bundles['a'])} → {b}"]


def test_a_rollback_leaves_the_copy_behind_and_reconcile_tells_it(told: House, bundles: dict[str, Bundle]):
    told.back("op3")
    assert told.aliases["champion"] == bundles["b"].digest
    tags, *aliases = told.reconcile(dry_run=True).repairs
    assert isinstance(tags, Retag)
    assert tags.wanted["action"] == "rollback"
    assert tags.wanted["reason"] == "it misfires"
    a, b = short(bundles["a"]), short(bundles["b"])
    assert [str(change) for change in aliases] == [f"alias champion: {b} → {a}", f"alias previous: {a} → {b}"]
    told.mended()
    told.put_up(bundles["c"], "op4")
    assert "reason" not in told.registry.projection.shown(NAME).tags, "no reason is left of an earlier entry"


def test_a_copy_that_never_heard_of_the_name_gets_all_of_it(house: House, bundles: dict[str, Bundle]):
    with pytest.raises(NameUnknown):
        house.reconcile()
    for name in "abc":
        house.put_up(bundles[name], f"op-{name}", told=False)
    assert len(house.mended()) == 3 + 1 + 2
    assert house.aliases == {"champion": bundles["c"].digest, "previous": bundles["b"].digest}


# ── what the store lacks ────────────────────────────────────────────────────


def test_a_version_whose_bundle_was_removed_is_not_made_again(told: House, bundles: dict[str, Bundle]):
    told.put_up(bundles["c"], "op3")
    mark = removal(bundles["a"].digest, author("gc", who="bob"), "removed")
    told.store.put(keys.removal_key(mark.digest), mark.to_bytes(), if_absent=True)
    for key in told.store.list(keys.bundle_key(mark.digest)):
        told.store.delete(key)
    when = f"{mark.at} by bob"
    assert told.mended() == [f"tags of version {mark.digest[:12]}: removed nothing → {when}"]
    told.hand.delete_version(1)
    assert told.mended() == []
    gone = f"version {mark.digest[:12]} stays missing: its bundle was removed from the store, {when}"
    assert told.reconcile().left == (gone,)


def test_one_damaged_old_bundle_does_not_keep_the_aliases_wrong(told: House, bundles: dict[str, Bundle]):
    told.put_up(bundles["c"], "op3")
    told.hand.delete_name()
    told.store.delete(keys.bundle_key(bundles["a"].digest, "sae/sae.json"))
    found = told.reconcile()
    assert told.aliases == {"champion": bundles["c"].digest, "previous": bundles["b"].digest}
    (left,) = found.left
    assert left.startswith(f"version {short(bundles['a'])} stays missing: ")
    assert "sae/sae.json" in left
    told.store.delete(keys.bundle_key(bundles["c"].digest, "sae/sae.json"))
    told.hand.delete_version(3 - 1)
    with pytest.raises(FolderDamaged):
        reconcile.run(told.registry, NAME, cache=told.cache / "cold", author=author("rec"))


# ── MLflow gone ─────────────────────────────────────────────────────────────


@pytest.fixture
def stopped(mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowServer]:
    """A server that is down, and up again when the test is over."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow_server.stop()
    yield mlflow_server
    mlflow_server.stop()
    mlflow_server.start()


@pytest.mark.slow
def test_while_mlflow_is_down_everything_works_and_reconcile_repairs_it_later(
    mlflow_server: MlflowServer,
    postgres_server: Postgres,
    bundles: dict[str, Bundle],
    tmp_path: Path,
    request: pytest.FixtureRequest,
):
    projection = MlflowProjection(mlflow_server.address, "reconcile", artifacts=tmp_path / "unused")
    hand = PostgresHand(projection, NAME, tmp_path, postgres_server)
    hand.delete_name()
    store = LocalStore(tmp_path / "var" / "registry")
    house = House(Registry(store, projection, patience_s=0), hand, tmp_path / "cache")
    house.put_up(bundles["a"], "op1")
    with in_checkout(tmp_path), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAEOPS_TRACKING", mlflow_server.address)
        request.getfixturevalue("stopped")
        moved = house.put_up(bundles["b"], "op2")
        assert "MLflow at http://" in moved.projection_problem
        assert house.back("op3").plan.to_digest == bundles["a"].digest
        assert "does not answer: MLflow at http://" in said_by(f"saeops status {NAME} --mlflow", tmp_path)
        assert [row.outcome for row in registry.history(store, NAME, verify=True)] == ["done"] * 3
        with pytest.raises(TrackerUnreachable):
            house.reconcile()
        mlflow_server.start()
        said = said_by(f"saeops status {NAME} --mlflow", tmp_path)
        assert f"behind: 3 to repair; saeops reconcile {NAME}" in said
        assert "missing → registered" in said_by(f"saeops reconcile {NAME}", tmp_path)
        assert said_by(f"saeops reconcile {NAME}", tmp_path) == "nothing to repair\n"
        assert "up to date" in said_by(f"saeops status {NAME} --mlflow", tmp_path)
    assert house.aliases == {"champion": bundles["a"].digest, "previous": bundles["b"].digest}
