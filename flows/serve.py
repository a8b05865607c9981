"""The service: deployments that wait for schedules and events, and a worker that runs them.

Three processes, each of which ends with the one before it, however that one ends:

    serve     keeps the other two; holds no connection and little memory
    server    Prefect's, unless one is configured (flows/server.py)
    worker    runs deployments, each run in a process of its own (flows/worker.py)

A worker that dies is started again. What it ran goes on: docs/service.md.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import typer

from flows.server import local_api
from saeops.errors import LostRace, SaeopsError, SchedulerUnreachable
from saeops.settings import Settings

REPOSITORY = Path(__file__).parents[1]
RESTART_AFTER_S = 5.0


def serve(root: Path) -> None:
    """Serve a checkout's dictionary until Ctrl-C or SIGTERM.

    Raises:
        LostRace: another service works for this checkout.
        SchedulerUnreachable: the server that started here ended.
        SaeopsError: the worker refuses, e.g. for faults in params; it has told why.
    """
    settings = Settings.from_environment(root)
    data = service_data(settings)
    # Whoever starts it in the background of a script hands on that Ctrl-C is ignored.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    # Nobody sits before a flow of the service: what fails is said on the terminal, too.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "ERROR")
    with _only_service(data), local_api(data / "prefect", schedules=True) as server:
        try:
            while True:
                ended = _work(settings.root)
                if server is not None and server.poll() is not None:
                    raise SchedulerUnreachable(
                        f"Prefect's server ended with {server.returncode}",
                        hint=f"its last words are in {data / 'prefect' / 'server.log'}; then serve again",
                    )
                if ended == SaeopsError.exit_code or ended in REFUSED:
                    raise SystemExit(ended)
                typer.echo(f"the worker ended with {ended}; another one starts", err=True)
                time.sleep(RESTART_AFTER_S)
        except KeyboardInterrupt:
            # Whoever looks at a server that goes on must not see runs that nobody works on.
            if server is None:
                _work(settings.root, "--leave")
            typer.echo("stopped; what ran goes on when this is started again")


REFUSED = (2, 3, 4, 5)
"""Exit codes that another try would end with, too."""


def service_data(settings: Settings) -> Path:
    """Where the service keeps its server's database, and its runs their signs of life."""
    return settings.var / "service"


def _work(root: Path, *options: str) -> int:
    """Run the worker to its end, and end whatever it leaves behind."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "flows.worker", str(root), *options],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        # Ctrl-C is for this process; a group of its own can be ended as one.
        start_new_session=True,
    )
    try:
        return worker.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


@contextlib.contextmanager
def _only_service(data: Path) -> Iterator[None]:
    """Hold this checkout's service; the kernel gives it back when the process dies."""
    data.mkdir(parents=True, exist_ok=True)
    with (data / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise LostRace(
                f"another service works for this checkout (process {file.read().strip() or 'unknown'})",
                hint="one is enough; stop it with Ctrl-C before you start another",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
