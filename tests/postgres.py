"""A real Postgres for tests, on a free loopback port, in a folder of its own."""

import contextlib
import getpass
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.seaweed import free_ports

USER, PASSWORD = "saeops", "secret-of-the-test"
READY_WITHIN_S = 60
OFFERED = "/usr/lib/postgresql"
"""Where Debian puts the programs of a server, a folder a version; they are on no PATH."""
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=60")
"""A server that lives for one test need not survive a power cut."""


class Postgres:
    """One server; as root its processes run as the user `postgres`, for a server refuses to run as root."""

    def __init__(self, programs: Path) -> None:
        self.programs = programs
        self.owner = "postgres" if os.geteuid() == 0 else getpass.getuser()
        self.folder = Path(tempfile.mkdtemp(prefix="postgres"))
        (self.port,) = free_ports(1)
        self.process: subprocess.Popen[bytes] | None = None

    def address(self, database: str, *, password: str = PASSWORD) -> str:
        return f"postgresql+psycopg://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Make the cluster and wait until it answers."""
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        for path in (self.folder, secret):
            shutil.chown(path, self.owner)
        self._run(
            "initdb", "-D", self.data, "-U", USER, "-A", "scram-sha-256", f"--pwfile={secret}", "-N", "-E", "UTF8"
        )
        listen = ["listen_addresses=127.0.0.1", f"port={self.port}", f"unix_socket_directories={self.folder}"]
        options = [part for option in (*listen, *FAST) for part in ("-c", option)]
        with (self.folder / "out").open("ab") as out:
            command = [self.programs / "postgres", "-D", self.data, *options]
            self.process = subprocess.Popen(command, stdout=out, stderr=out, user=self._user, cwd=self.folder)
        for _ in range(READY_WITHIN_S * 10):
            assert self.process.poll() is None, (self.folder / "out").read_text()[-2000:]
            if subprocess.run(self._client("pg_isready"), capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.1)
        raise AssertionError(f"Postgres is not ready: {(self.folder / 'out').read_text()[-2000:]}")

    def create(self, database: str) -> str:
        """An empty database; gives its address."""
        self._run(*self._client("createdb"), database)
        return self.address(database)

    def dump(self, database: str, to: Path) -> None:
        """Yesterday's backup."""
        to.write_bytes(self._run(*self._client("pg_dump"), "--format=custom", database))

    def restore(self, database: str, dump: Path) -> None:
        """The database as it was in a backup, whoever is connected to it."""
        self._run(*self._client("dropdb"), "--force", database)
        self._run(*self._client("createdb"), database)
        self._run(*self._client("pg_restore"), "--dbname", database, given=dump.read_bytes())

    def stop(self) -> None:
        if self.process is not None:
            # SIGINT: close every connection and end; SIGTERM would wait for the clients.
            self.process.send_signal(signal.SIGINT)
            self.process.wait(READY_WITHIN_S)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def _user(self) -> int:
        return pwd.getpwnam(self.owner).pw_uid

    def _client(self, program: str) -> list[str]:
        return [program, "-h", "127.0.0.1", "-p", str(self.port), "-U", USER]

    def _run(self, program: str, *arguments: object, given: bytes | None = None) -> bytes:
        command = [str(self.programs / program), *map(str, arguments)]
        done = subprocess.run(
            command,
            input=given,
            capture_output=True,
            check=False,
            user=self._user,
            cwd=self.folder,
            env={**os.environ, "PGPASSWORD": PASSWORD},
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout


@contextlib.contextmanager
def running() -> Iterator[Postgres]:
    """A server for as long as the block; skips where this machine has no programs for one."""
    programs = _programs()
    if programs is None:
        pytest.skip("no initdb of Postgres, on the PATH or under /usr/lib/postgresql: no server to test on")
    server = Postgres(programs)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)


def _programs() -> Path | None:
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    versions = sorted(Path(OFFERED).glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return versions[-1].parent if versions else None
