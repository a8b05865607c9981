"""One contract for every ledger, then what only a database can get wrong."""

import json
import sqlite3
from pathlib import Path

import pytest

from saeops.adapters.ledger import MemoryLedger, SqlLedger
from saeops.errors import LedgerTampered, StoreUnreachable, ToolMissing
from saeops.ports import ReviewLedger
from saeops.review.ledger import GENESIS, Decision, LedgerEntry, verify_chain
from tests.forks import forked


def decision(latent: int, **changes: object) -> Decision:
    values = {
        "bundle": "b" * 64, "latent": latent, "label_version": "v1", "verdict": "accept",
        "text": None, "reason": "", "reviewer": "ada", "at": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return Decision(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> ReviewLedger:
    return MemoryLedger() if request.param == "memory" else SqlLedger(f"sqlite:///{tmp_path / 'var' / 'r.db'}")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A ledger of five entries, as a file."""
    path = tmp_path / "reviews.db"
    for latent in range(5):
        SqlLedger(f"sqlite:///{path}").append(decision(latent, reason="schön"))
    return path


def unlocked(path: Path) -> sqlite3.Connection:
    """Somebody with the file and no respect for triggers."""
    connection = (
        sqlite3.connect(path, autocommit=True) if hasattr(sqlite3, "autocommit") else sqlite3.connect(path)
    )
    connection.isolation_level = None
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    return connection


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


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE review_entries SET decision = '{}' WHERE seq = 2",
        "DELETE FROM review_entries WHERE seq = 2",
        "INSERT OR REPLACE INTO review_entries SELECT seq, '{}', previous, 'x' FROM review_entries WHERE seq = 2",
    ],
)
def test_the_database_itself_refuses_to_change_history(database: Path, statement: str):
    connection = sqlite3.connect(database)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)
    connection.close()
    assert len(SqlLedger(f"sqlite:///{database}").entries()) == 5


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
def test_a_ledger_edited_by_hand_names_the_first_bad_entry(database: Path, statements: list[str], bad: int):
    connection = unlocked(database)
    for statement in statements:
        connection.execute(statement)
    connection.close()
    ledger = SqlLedger(f"sqlite:///{database}")
    with pytest.raises(LedgerTampered, match=f"entry {bad}:"):
        ledger.entries()
    with pytest.raises(LedgerTampered, match=f"entry {bad}:"):
        ledger.append(decision(9))


def test_an_edit_that_mends_its_own_digest_still_breaks_the_next_link(database: Path):
    ledger = SqlLedger(f"sqlite:///{database}")
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


def test_writers_that_race_lose_nothing(tmp_path: Path):
    address = f"sqlite:///{tmp_path / 'reviews.db'}"
    writers = [forked(_append_some, address, 10 * i) for i in range(4)]
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0, 0]
    entries = SqlLedger(address).entries()
    assert sorted(entry.decision.latent for entry in entries) == list(range(40))
