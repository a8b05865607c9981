"""`python -m flows serve` as people run it: a process of its own, that tests may kill."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.flows.conftest import ROOT

STARTS_WITHIN_S = 180.0
ENDS_WITHIN_S = 120.0
ANSWERS_WITHIN_S = 60.0


@dataclass
class Serving:
    """A service that runs."""

    process: "subprocess.Popen[bytes]"
    api: str
    log: Path
    """What it and its runs print."""

    def ask(self, method: str, path: str, **json: Any) -> Any:
        """Prefect's REST API, asked again while it says that it is busy."""
        import httpx

        def answered() -> httpx.Response | None:
            answer = httpx.request(method, f"{self.api}{path}", json=json or None, timeout=60)
            return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer

        answer = until(answered, ANSWERS_WITHIN_S, every_s=1.0)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """A flow's runs, the oldest first."""
        found = self.ask("POST", "/flow_runs/filter", flows={"name": {"any_": [flow]}})
        return sorted(found, key=lambda run: run["created"])

    def start_by_hand(self, flow: str, name: str) -> None:
        """Run a deployment now."""
        deployment = self.ask("GET", f"/deployments/name/{flow}/{name}")
        self.ask("POST", f"/deployments/{deployment['id']}/create_flow_run", state={"type": "SCHEDULED"})

    def kill(self) -> None:
        """SIGKILL to the service's own process, and to no other."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def serving(root: Path, env: dict[str, str], log: Path) -> Iterator[Serving]:
    """A service for a checkout; ends with Ctrl-C, unless it was killed."""
    command = [sys.executable, "-m", "flows", "serve", "--root", str(root)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        before = log.stat().st_size
        wanted = re.compile(r"PREFECT_API_URL=(\S+/api)\).*Ctrl-C", re.DOTALL)
        found = until(lambda: wanted.search(_after(log, before)) or process.poll() is not None, STARTS_WITHIN_S)
        assert isinstance(found, re.Match), f"the service ended:\n{log.read_text()}"
        yield Serving(process, found[1], log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(ENDS_WITHIN_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def until(holds: "Callable[[], Any]", within_s: float, *, every_s: float = 0.2) -> Any:
    """What `holds` returns, once it is true."""
    deadline = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s"
        time.sleep(every_s)
    return found


def processes_of(root: Path) -> list[str]:
    """Processes that were told of a checkout, by command line or environment; they or whoever started them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            if os.fsencode(root) in told:
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def _after(log: Path, position: int) -> str:
    return log.read_bytes()[position:].decode(errors="replace")
