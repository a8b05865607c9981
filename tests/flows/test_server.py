"""The flow's own Prefect server: there while the flow is, gone when it is gone, however it went."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows import server
from flows.server import local_api
from saeops.errors import SchedulerUnreachable

ROOT = Path(__file__).parents[2]
GONE_WITHIN_S = 20.0
ENDS_WITHIN_S = 180.0
"""Prefect's client asks a busy server again and again before it gives up."""

FLOW = """
import signal, sys, time
# A test runner in the background was started with Ctrl-C ignored, and hands that on.
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from flows.server import local_api

with local_api(Path(sys.argv[1])):
    from prefect import flow

    @flow
    def sit(seconds: float) -> None:
        print("in the flow", flush=True)
        time.sleep(seconds)

    sit(float(sys.argv[2]))
"""


def servers(data: Path) -> list[str]:
    """Command lines of processes that serve this data folder."""
    listing = subprocess.run(["ps", "-wweo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listing.splitlines() if server.__file__ in line and str(data) in line]


@contextlib.contextmanager
def start(data: Path, seconds: float) -> Iterator["subprocess.Popen[str]"]:
    flow = subprocess.Popen(
        [sys.executable, "-c", FLOW, str(data), str(seconds)],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if key != "PREFECT_API_URL"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield flow
    finally:
        flow.kill()
        flow.communicate()


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "prefect"
    assert not servers(tmp_path), "a server was left behind"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=["kill", "ctrl-c", "term"])
@pytest.mark.slow
def test_an_interrupted_flow_takes_its_server_with_it(data: Path, how: signal.Signals) -> None:
    with start(data, 300) as flow:
        assert flow.stdout is not None
        assert flow.stdout.readline() == "in the flow\n"
        assert len(servers(data)) == 1
        os.killpg(flow.pid, how)
        flow.communicate(timeout=ENDS_WITHIN_S)
        assert flow.returncode != 0
    deadline = time.monotonic() + GONE_WITHIN_S
    while servers(data) and time.monotonic() < deadline:
        time.sleep(0.2)


@pytest.mark.slow
def test_a_finished_flow_ends_its_server_quietly(data: Path) -> None:
    with start(data, 0) as flow:
        output, errors = flow.communicate(timeout=180)
    assert flow.returncode == 0
    assert output == "in the flow\n"
    assert errors == "", "Prefect's lines would bury the progress bars"
    assert not servers(data)


def test_a_configured_server_is_used_and_none_is_started(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with local_api(data):
        assert not servers(data)
        assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:9/api"
    assert not data.exists()


def test_a_server_that_does_not_start_is_an_error_with_its_log(data: Path) -> None:
    data.mkdir()
    script = "import sys; sys.stderr.write('the reason'); sys.exit(3)"
    with (data / "server.log").open("wb") as log:
        broken = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
    with pytest.raises(SchedulerUnreachable, match=r"server\.log"):
        server._wait_until_healthy(broken, data / "server.log", 30)
    server._stop(broken)


def test_what_the_person_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "DEBUG")
    server.quiet_environment()
    assert os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] == "DEBUG"
    assert os.environ["DO_NOT_TRACK"] == "true"
