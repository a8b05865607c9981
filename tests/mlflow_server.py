"""A real MLflow server for tests: Postgres behind it, artifacts on S3, on a free loopback port."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.seaweed import BUCKET, Seaweed, free_ports

READY_WITHIN_S = 120


class MlflowServer:
    """One server, which can be stopped and started again.

    Args:
        backend: address of its database.
        s3: where the files go that its clients send it.
        folder: its log, and the folder it runs in.
    """

    def __init__(self, backend: str, s3: Seaweed, folder: Path) -> None:
        (self.port,) = free_ports(1)
        self.address = f"http://127.0.0.1:{self.port}"
        self.backend, self.s3, self.folder = backend, s3, folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start (again, on the database that is there), and wait until it answers."""
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--workers", "1", "--backend-store-uri", self.backend),
            *("--artifacts-destination", f"s3://{BUCKET}/mlflow"),
        ]
        keys = self.s3.environment()
        environment = {
            **os.environ,
            **keys,
            "MLFLOW_S3_ENDPOINT_URL": keys["AWS_ENDPOINT_URL"],
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        with (self.folder / "out").open("ab") as out:
            # A session of its own: its workers are its children, and go with it.
            self.process = subprocess.Popen(
                command, stdout=out, stderr=out, env=environment, cwd=self.folder, start_new_session=True
            )
        for _ in range(READY_WITHIN_S * 5):
            assert self.process.poll() is None, (self.folder / "out").read_text()[-3000:]
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.address}/health", timeout=5).status_code == httpx.codes.OK:
                    return
            time.sleep(0.2)
        raise AssertionError(f"MLflow is not ready: {(self.folder / 'out').read_text()[-3000:]}")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@contextlib.contextmanager
def running(backend: str, s3: Seaweed, folder: Path) -> Iterator[MlflowServer]:
    """A server for as long as the block."""
    server = MlflowServer(backend, s3, folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
