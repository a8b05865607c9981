"""The review ledger in a SQL database: SQLite by default, Postgres by its URL."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Column, Integer, MetaData, String, Table, Text, create_engine, event, inspect, text
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import DDL

from saeops.digests import canonical_json
from saeops.errors import LedgerTampered, StoreUnreachable, ToolMissing
from saeops.review.ledger import Decision, LedgerEntry, next_entry, tampered, verify_chain

_METADATA = MetaData()
_ENTRIES = Table(
    "review_entries",
    _METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("decision", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("sha256", String(64), nullable=False, unique=True),
)
_APPEND_ONLY = "SELECT RAISE(ABORT, 'the review ledger is append-only');"
_TRIGGERS = (
    f"CREATE TRIGGER review_no_update BEFORE UPDATE ON review_entries BEGIN {_APPEND_ONLY} END",
    f"CREATE TRIGGER review_no_delete BEFORE DELETE ON review_entries BEGIN {_APPEND_ONLY} END",
    # INSERT OR REPLACE deletes without firing the trigger above.
    "CREATE TRIGGER review_no_replace BEFORE INSERT ON review_entries "
    f"WHEN EXISTS (SELECT 1 FROM review_entries WHERE seq = NEW.seq) BEGIN {_APPEND_ONLY} END",
)
_POSTGRES_TRIGGERS = (
    "CREATE OR REPLACE FUNCTION review_append_only() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'the review ledger is append-only'; END $$",
    # A statement's trigger fires even where no row matches, and TRUNCATE has no other.
    "CREATE TRIGGER review_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON review_entries "
    "FOR EACH STATEMENT EXECUTE FUNCTION review_append_only()",
)
for _dialect, _statements in (("sqlite", _TRIGGERS), ("postgresql", _POSTGRES_TRIGGERS)):
    for _statement in _statements:
        event.listen(_ENTRIES, "after_create", DDL(_statement).execute_if(dialect=_dialect))

LOCK_TIMEOUT_S = 30
"""How long an append waits for another one to finish."""


class SqlLedger:
    """Review decisions in a SQL table that only grows.

    Raises:
        StoreUnreachable: the address cannot be read, or the database does not answer.
        ToolMissing: the database's Python driver is not installed.
    """

    def __init__(self, address: str) -> None:
        try:
            self._url = make_url(address)
            self._engine = _engine(address)
        except (ArgumentError, NoSuchModuleError) as error:
            raise StoreUnreachable(
                "SAEOPS_LEDGER is not a database address",
                hint="write sqlite:///<path> or postgresql+psycopg://user@host/name",
            ) from error
        except ModuleNotFoundError as error:
            raise ToolMissing(
                f"the driver {error.name} for the review ledger is not installed",
                hint="pip install 'saeops[postgres]'" if error.name == "psycopg" else f"pip install {error.name}",
            ) from error
        self.address = self._url.render_as_string(hide_password=True)

    def append(self, decision: Decision) -> LedgerEntry:
        """Verify the chain and put one entry at its end, in one serialised transaction.

        Raises:
            LedgerTampered: the chain does not hold; nothing is written.
            StoreUnreachable: the database does not answer; nothing is written.
        """
        self._make_folder()
        with self._explained(), self._engine.connect() as connection, connection.begin():
            if connection.dialect.name == "postgresql":
                # There is no table to lock before the first append has made it.
                connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('saeops.review_entries'))"))
            _METADATA.create_all(connection)
            entry = next_entry(self._read(connection), decision)
            connection.execute(_ENTRIES.insert().values(_row(entry)))
        return entry

    def entries(self) -> list[LedgerEntry]:
        """All entries in order, chain verified; none where no decision was ever made.

        Raises:
            LedgerTampered: names the first sequence number that does not hold.
            StoreUnreachable: the database does not answer.
        """
        if self._file is not None and not self._file.exists():
            return []
        # One SELECT sees one state; a transaction would take the writers' lock.
        with self._explained(), self._engine.connect() as connection:
            reading = connection.execution_options(isolation_level="AUTOCOMMIT")
            return self._read(reading) if inspect(reading).has_table(_ENTRIES.name) else []

    @property
    def _file(self) -> Path | None:
        in_file = self._url.get_backend_name() == "sqlite" and self._url.database not in (None, "", ":memory:")
        return Path(str(self._url.database)) if in_file else None

    def _make_folder(self) -> None:
        if self._file is None:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unreachable(str(error)) from error

    def _read(self, connection: Connection) -> list[LedgerEntry]:
        rows = connection.execute(_ENTRIES.select().order_by(_ENTRIES.c.seq)).all()
        entries = [
            _entry(row.seq, row.decision, row.previous, row.sha256, expected=expected, where=self.address)
            for expected, row in enumerate(rows, start=1)
        ]
        verify_chain(entries, where=self.address)
        return entries

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            raise self._unreachable(str(error.orig)) from error
        except DatabaseError as error:
            if isinstance(error.orig, sqlite3.DatabaseError) and "not a database" in str(error.orig):
                raise LedgerTampered(
                    f"review ledger {self.address} is not a database any more",
                    hint="put the file back from a backup",
                ) from error
            raise self._unreachable(str(error.orig)) from error
        except DBAPIError as error:
            raise self._unreachable(str(error.orig)) from error

    def _unreachable(self, why: str) -> StoreUnreachable:
        return StoreUnreachable(
            f"the review ledger {self.address} does not answer: {why.strip()}",
            hint="check SAEOPS_LEDGER, that its folder is writable, and that no other decision is stuck",
        )


class MemoryLedger:
    """A ledger for tests: the same chain, kept in a list."""

    address = "memory"

    def __init__(self, decisions: Sequence[Decision] = ()) -> None:
        self._entries: list[LedgerEntry] = []
        for decision in decisions:
            self.append(decision)

    def append(self, decision: Decision) -> LedgerEntry:
        entry = next_entry(self._entries, decision)
        self._entries.append(entry)
        return entry

    def entries(self) -> list[LedgerEntry]:
        verify_chain(self._entries, where=self.address)
        return list(self._entries)


def _engine(address: str) -> Engine:
    sqlite = make_url(address).get_backend_name() == "sqlite"
    engine = create_engine(address, poolclass=NullPool, connect_args=_patience(make_url(address)))
    if sqlite:
        event.listen(engine, "connect", _leave_transactions_to_us)
        event.listen(engine, "begin", _begin_immediate)
    return engine


def _patience(url: URL) -> dict[str, object]:
    """How each driver is told how long to wait: for the server, and for the lock."""
    if url.get_backend_name() == "sqlite":
        return {"timeout": LOCK_TIMEOUT_S}
    if url.get_backend_name() == "postgresql":
        return {"connect_timeout": LOCK_TIMEOUT_S, "options": f"-c lock_timeout={LOCK_TIMEOUT_S}s"}
    return {"connect_timeout": LOCK_TIMEOUT_S}


def _leave_transactions_to_us(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None


def _begin_immediate(connection: Connection) -> None:
    # A deferred transaction would read the last entry before it holds the write lock.
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _row(entry: LedgerEntry) -> dict[str, object]:
    decision = canonical_json(entry.decision.to_json()).decode()
    return {"seq": entry.seq, "decision": decision, "previous": entry.previous, "sha256": entry.sha256}


def _entry(seq: int, decision: str, previous: str, sha256: str, *, expected: int, where: str) -> LedgerEntry:
    try:
        return LedgerEntry(seq, Decision.from_json(json.loads(decision)), previous, sha256)
    except (ValueError, TypeError) as error:
        raise tampered(expected, "its content is not a decision", where=where) from error
