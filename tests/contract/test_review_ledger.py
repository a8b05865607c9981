"""One contract for every ledger, then what only a database can get wrong."""

import hashlib
import json
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool

from saeops.adapters.ledger import MemoryLedger, SqlLedger
from saeops.errors import LedgerTampered, StoreUnreachable, ToolMissing
from saeops.ports import ReviewLedger
from saeops.review.ledger import GENESIS, Decision, LedgerEntry, verify_chain
from tests.forks import forked
from tests.postgres import Postgres
from tests.seaweed import free_ports


def decision(latent: int, **changes: object) -> Decision:
    values = {
        "bundle": "b" * 64, "latent": latent, "label_version": "v1", "verdict": "accept",
        "text": None, "reason": "", "reviewer": "ada", "at": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return Decision(**{**values, **changes})  # type: ignore[arg-type]


POSTGRES = pytest.param("postgres", marks=pytest.mark.slow)


def empty(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database without a ledger."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path / 'var' / 'reviews.db'}"
    server: Postgres = request.getfixturevalue("postgres_server")
    return server.create("r" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16])


@pytest.fixture(params=["memory", "sqlite", POSTGRES])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> ReviewLedger:
    return MemoryLedger() if request.param == "memory" else SqlLedger(empty(request.param, request, tmp_path))


@pytest.fixture(params=["sqlite", POSTGRES])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return empty(request.param, request, tmp_path)


@pytest.fixture
def database(address: str) -> str:
    """A ledger of five entries."""
    for latent in range(5):
        SqlLedger(address).append(decision(latent, reason="schön"))
    return address


def execute(address: str, *statements: str) -> None:
    """As somebody with a client of the database."""
    engine = create_engine(address, poolclass=NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def lift_triggers(address: str) -> None:
    """No respect for triggers either."""
    if address.startswith("sqlite"):
        names = ("review_no_update", "review_no_delete", "review_no_replace")
        execute(address, *(f"DROP TRIGGER {name}" for name in names))
    else:
        execute(address, "ALTER TABLE review_entries DISABLE TRIGGER USER")


def test_a_new_ledger_is_empty_and_reading_it_makes_nothing(tmp_path: Path):
    path = tmp_path / "var" / "reviews.db"
    assert SqlLedger(f"sqlite:///{path}").entries() == []
    assert not path.parent.exists()


def test_entries_come_back_in_order_and_chained(ledger: ReviewLedger):
    written = [ledger.append(decision(i, verdict="edit", text="héllo", reason=f"r{i}")) for i in range(4)]
    assert ledger.entries() == written
    assert [entry.seq for entry in written] == [1, 2, 3, 4]
    assert written[0].previous == GENESIS
    assert [entry.previous for entry in written[1:]] == [entry.sha256 for entry in written[:-1]]


def test_an_entry_survives_a_round_trip_through_json(ledger: ReviewLedger):
    entry = ledger.append(decision(3))
    assert LedgerEntry.from_json(json.loads(json.dumps(entry.to_json()))) == entry


AGAIN = "review_entries SELECT seq, '{}', previous, 'x' FROM review_entries WHERE seq = 2"
OVERWRITING = {
    "sqlite": [f"INSERT OR REPLACE INTO {AGAIN}"],
    "postgresql": [
        f"INSERT INTO {AGAIN} ON CONFLICT (seq) DO UPDATE SET decision = '{{}}'",
        "TRUNCATE review_entries",
    ],
}


def test_the_database_itself_refuses_to_change_history(database: str):
    for statement in [
        "UPDATE review_entries SET decision = '{}' WHERE seq = 2",
        "DELETE FROM review_entries WHERE seq = 2",
        *OVERWRITING[make_url(database).get_backend_name()],
    ]:
        with pytest.raises(DatabaseError, match="append-only"):
            execute(database, statement)
    assert len(SqlLedger(database).entries()) == 5


@pytest.mark.parametrize(
    ("statements", "bad"),
    [
        (["UPDATE review_entries SET decision = replace(decision, 'accept', 'reject') WHERE seq = 3"], 3),
        (["UPDATE review_entries SET decision = 'not json' WHERE seq = 4"], 4),
        (["UPDATE review_entries SET decision = '{\"latent\": 1}' WHERE seq = 2"], 2),
        (["DELETE FROM review_entries WHERE seq = 3"], 3),
        (["DELETE FROM review_entries WHERE seq = 1"], 1),
        (["DELETE FROM review_entries WHERE seq = 3", "UPDATE review_entries SET seq = seq - 1 WHERE seq > 3"], 3),
        (
            [
                "UPDATE review_entries SET seq = 99 WHERE seq = 2",
                "UPDATE review_entries SET seq = 2 WHERE seq = 3",
                "UPDATE review_entries SET seq = 3 WHERE seq = 99",
            ],
            2,
        ),
        (["UPDATE review_entries SET sha256 = 'f' WHERE seq = 5"], 5),
        (["UPDATE review_entries SET previous = 'f' WHERE seq = 4"], 4),
    ],
)
def test_a_ledger_edited_by_hand_names_the_first_bad_entry(database: str, statements: list[str], bad: int):
    lift_triggers(database)
    execute(database, *statements)
    ledger = SqlLedger(database)
    with pytest.raises(LedgerTampered, match=f"entry {bad}:"):
        ledger.entries()
    with pytest.raises(LedgerTampered, match=f"entry {bad}:"):
        ledger.append(decision(9))


def test_an_edit_that_mends_its_own_digest_still_breaks_the_next_link(database: str):
    ledger = SqlLedger(database)
    entries = ledger.entries()
    forged = MemoryLedger([e.decision for e in entries[:2]] + [decision(2, verdict="reject", reason="forged")])
    chain = [*forged.entries(), *entries[3:]]
    with pytest.raises(LedgerTampered, match="entry 4: does not follow"):
        verify_chain(chain, where="test")


def test_a_file_that_is_no_database_is_tampered(tmp_path: Path):
    path = tmp_path / "reviews.db"
    path.write_bytes(b"nothing of the kind " * 100)
    with pytest.raises(LedgerTampered, match="not a database"):
        SqlLedger(f"sqlite:///{path}").entries()


@pytest.mark.parametrize("address", ["nonsense", "oracledb2://x/y", "sqlite:///{tmp}/file/reviews.db"])
def test_a_ledger_that_cannot_be_reached_says_so(address: str, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreUnreachable):
        SqlLedger(address.format(tmp=tmp_path)).append(decision(1))


def test_a_missing_driver_is_named_and_the_password_is_not():
    with pytest.raises(ToolMissing, match="pg8000") as caught:
        SqlLedger("postgresql+pg8000://ada:hunter2@db/reviews")
    assert "hunter2" not in str(caught.value)


def _append_some(address: str, start: int) -> None:
    ledger = SqlLedger(address)
    for latent in range(start, start + 10):
        ledger.append(decision(latent))


def test_writers_that_race_lose_nothing(address: str):
    writers = [forked(_append_some, address, 10 * i) for i in range(4)]
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0, 0]
    entries = SqlLedger(address).entries()
    assert sorted(entry.decision.latent for entry in entries) == list(range(40))


@pytest.mark.slow
def test_a_postgres_that_refuses_or_is_gone_says_so_without_the_password(postgres_server: Postgres):
    wrong = SqlLedger(postgres_server.address("postgres", password="hunter2"))
    with pytest.raises(StoreUnreachable, match="password authentication failed") as refused:
        wrong.entries()
    with pytest.raises(StoreUnreachable, match="does not exist"):
        SqlLedger(postgres_server.address("never_made")).append(decision(1))
    (closed,) = free_ports(1)
    with pytest.raises(StoreUnreachable, match="refused") as gone:
        SqlLedger(f"postgresql+psycopg://ada:hunter2@127.0.0.1:{closed}/reviews").append(decision(1))
    assert "hunter2" not in f"{refused.value} {gone.value}"


@pytest.mark.slow
def test_on_postgres_reading_does_not_wait_for_a_writer_and_a_new_database_has_no_entries(
    postgres_server: Postgres,
):
    address = postgres_server.create("reviews_read")
    ledger = SqlLedger(address)
    assert ledger.entries() == []
    ledger.append(decision(1))
    with create_engine(address, poolclass=NullPool).begin() as writer:
        writer.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('saeops.review_entries'))")
        assert [entry.decision.latent for entry in ledger.entries()] == [1]
