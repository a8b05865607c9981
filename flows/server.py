"""A Prefect server that lives exactly as long as the flow, or the service, that needs it.

`local_api` starts this file as a program and holds a pipe to it. When the flow's
process ends, for whatever reason, SIGKILL included, the kernel closes the pipe
and the server ends itself. Prefect's own ephemeral server outlives a killed flow.
See docs/decisions/own-prefect-server.md.
"""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0
_CONFIGURED = "configured"


def quiet_environment() -> None:
    """Telemetry off, and terminal output left to the progress bars; the API still keeps every line.

    Whatever the person has set stays as it is.
    """
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


@contextlib.contextmanager
def local_api(
    data: Path, *, schedules: bool = False, start_timeout_s: float = START_TIMEOUT_S
) -> Iterator["subprocess.Popen[bytes] | None"]:
    """Give Prefect an API to talk to, for as long as the block runs.

    A configured one (PREFECT_API_URL, or Prefect's active profile) is used as it
    is. Otherwise a server starts, with its database in `data`. Enter this before
    prefect is imported: it reads its settings then.

    Args:
        schedules: the server also schedules runs, watches for events, and shows its pages.

    Yields:
        The server that started here, if one did.

    Raises:
        SchedulerUnreachable: the server does not come up in time.
    """
    quiet_environment()
    if os.environ.get("PREFECT_API_URL"):
        yield None
        return
    assert "prefect" not in sys.modules, "prefect read its settings before there was an API"
    data.mkdir(parents=True, exist_ok=True)
    log = data / "server.log"
    with log.open("wb") as errors:
        server = subprocess.Popen(
            # -P: flows/ must not come first on the path, its files would hide packages.
            [sys.executable, "-P", __file__, str(data), *(["--schedules"] if schedules else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            # Ctrl-C is for the flow, which still has things to tell the server.
            start_new_session=True,
        )
    try:
        address = _wait_until_healthy(server, log, start_timeout_s)
        if address:
            os.environ["PREFECT_API_URL"] = address
        yield server if address else None
    finally:
        _drain()
        os.environ.pop("PREFECT_API_URL", None)
        _stop(server)


def _wait_until_healthy(server: "subprocess.Popen[bytes]", log: Path, timeout_s: float) -> str | None:
    """The server's address; None where Prefect's profile names another API."""
    from rich.console import Console

    deadline = time.monotonic() + timeout_s
    with Console(stderr=True).status("starting Prefect's server …"):
        first_line = _first_line(server, timeout_s)
        if first_line == _CONFIGURED:
            return None
        while first_line and server.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError, urllib.error.URLError):
                urllib.request.urlopen(f"{first_line}/health", timeout=2).close()
                return first_line
            time.sleep(0.1)
    from saeops.errors import SchedulerUnreachable

    state = f"ended with {server.returncode}" if server.poll() is not None else f"silent for {timeout_s:.0f} s"
    raise SchedulerUnreachable(
        f"Prefect's server does not start: {state}",
        hint=f"its last words are in {log}; or set PREFECT_API_URL to a server that runs",
    )


def _first_line(server: "subprocess.Popen[bytes]", timeout_s: float) -> str:
    """What the server says first; empty when it says nothing in time, or ends."""
    said: list[bytes] = []
    assert server.stdout is not None
    reader = threading.Thread(target=lambda: said.append(server.stdout.readline()), daemon=True)  # type: ignore[union-attr]
    reader.start()
    reader.join(timeout_s)
    return said[0].decode().strip() if said else ""


def _drain() -> None:
    """Let Prefect's background threads deliver what they hold, while there is somebody to take it."""
    if "prefect" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    # Neither worker was ever started when nothing ran.
    with contextlib.suppress(RuntimeError):
        APILogWorker.instance().drain()
    EventsWorker.drain_all()


def _stop(server: "subprocess.Popen[bytes]") -> None:
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.close()
    try:
        server.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    finally:
        server.stdout.close()


# ── the server's side ───────────────────────────────────────────────────────


def serve(data: Path, *, schedules: bool = False) -> None:
    """Serve until standard input ends. The first line of output is the API's address.

    Args:
        schedules: with Prefect's scheduler, triggers, automations and pages.
    """
    quiet_environment()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        os.environ.update(
            PREFECT__SERVER_FINAL="1",
            PREFECT_UI_ENABLED="1" if schedules else "0",
            PREFECT_UI_API_URL=address,
            PREFECT_SERVER_DATABASE_CONNECTION_URL=f"sqlite+aiosqlite:///{data.resolve() / 'prefect.db'}",
            **({} if schedules else {"PREFECT__SERVER_EPHEMERAL": "1"}),
        )
        import uvicorn
        from prefect.server.api.server import create_app
        from prefect.settings import PREFECT_API_URL

        if PREFECT_API_URL.value():
            sys.stdout.write(_CONFIGURED + "\n")
            return
        server = uvicorn.Server(
            uvicorn.Config(create_app, factory=True, lifespan="on", log_level="error", timeout_graceful_shutdown=3)
        )
        threading.Thread(target=_end_with_the_pipe, args=(server,), daemon=True).start()
        sys.stdout.write(f"{address}\n")
        sys.stdout.flush()
        # Nobody reads further output; it goes to the log.
        os.dup2(2, 1)
        server.run(sockets=[listener])


def _end_with_the_pipe(server: object) -> None:
    sys.stdin.buffer.read()
    server.should_exit = True  # type: ignore[attr-defined]
    time.sleep(STOP_TIMEOUT_S / 2)
    os._exit(1)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), schedules="--schedules" in sys.argv[2:])
