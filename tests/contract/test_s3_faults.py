"""What goes wrong with an S3 store: made to happen on a real server, each ends in one clear error."""

import contextlib
import datetime
import os
import resource
import signal
import traceback
from collections.abc import Iterator
from pathlib import Path

import botocore.auth
import pytest
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError

from saeops.adapters.conditions import prove
from saeops.adapters.s3 import PART_BYTES, SHA256, S3Store, open_s3
from saeops.adapters.s3_client import Patience
from saeops.digests import digest_file
from saeops.errors import (
    ClockSkewed,
    ObjectDamaged,
    SaeopsError,
    StoreDenied,
    StoreMissing,
    StoreUnfit,
    StoreUnreachable,
    UsageError,
)
from tests.seaweed import ADMIN, BUCKET, BUNDLES_ONLY, running

HASTY = Patience(connect_s=1, read_s=5, again_s=0.5)


def hasty(address: str) -> S3Store:
    return open_s3(address, HASTY)


@contextlib.contextmanager
def refused(error: type[SaeopsError], match: str, *, exit_code: int) -> Iterator[None]:
    """The one error, with its exit code, a hint, and no secret in it or in its traceback."""
    with pytest.raises(error, match=match) as told:
        yield
    assert told.value.exit_code == exit_code
    assert told.value.hint
    written = "".join(traceback.format_exception(told.value))
    assert ADMIN.secret not in written
    assert BUNDLES_ONLY.secret not in written


def test_an_endpoint_that_does_not_answer(s3_address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    for act in (lambda s: s.get("k"), lambda s: s.put("k", b"", if_absent=True), lambda s: s.list("")):
        with refused(StoreUnreachable, "http://127.0.0.1:1 does not answer", exit_code=6):
            act(hasty(s3_address))


def test_a_password_in_the_endpoint_s_address_is_not_shown(s3_address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://me:{ADMIN.secret}@127.0.0.1:1")
    store = hasty(s3_address)
    with pytest.raises(SaeopsError) as told:
        store.get("k")
    assert ADMIN.secret not in str(told.value) + repr(store)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:1", "http://"])
def test_an_endpoint_s_address_that_is_none(s3_address: str, monkeypatch: pytest.MonkeyPatch, endpoint: str):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with refused(UsageError, "no S3 client", exit_code=2):
        hasty(s3_address).get("k")


@pytest.mark.parametrize(
    ("name", "value"), [("AWS_SECRET_ACCESS_KEY", "another"), ("AWS_ACCESS_KEY_ID", "nobody")]
)
def test_wrong_credentials(s3_address: str, monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    monkeypatch.setenv(name, value)
    with refused(StoreDenied, "does not accept these credentials", exit_code=6):
        hasty(s3_address).list("")


def test_credentials_come_from_the_environment_and_not_from_files(
    s3_address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        f"[default]\naws_access_key_id = {ADMIN.access}\naws_secret_access_key = {ADMIN.secret}\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    hasty(s3_address).list("")
    for name in ADMIN.environment():
        monkeypatch.delenv(name)
    with refused(StoreDenied, "no credentials for .* in the environment", exit_code=6):
        hasty(s3_address).list("")


@pytest.mark.usefixtures("s3_address")
def test_a_bucket_that_is_missing():
    store = hasty("s3://not-made-yet/prefix")
    for act in (store.get, store.list, lambda key: store.put(key, b"x"), store.delete):
        with refused(StoreMissing, "there is no bucket not-made-yet", exit_code=6):
            act("k")


@pytest.mark.usefixtures("s3_address")
def test_no_permission_on_one_key(monkeypatch: pytest.MonkeyPatch):
    for name, value in BUNDLES_ONLY.environment().items():
        monkeypatch.setenv(name, value)
    store = hasty(f"s3://{BUCKET}/partly")
    store.put("bundles/x", b"may")
    assert store.get("bundles/x").data == b"may"
    with refused(StoreDenied, "no permission to write names/x", exit_code=6):
        store.put("names/x", b"may not")
    with refused(StoreDenied, r"no permission to write names/\.probe", exit_code=6):
        store.put("names/x", b"may not", if_absent=True)


def test_a_clock_that_is_wrong(s3_address: str, monkeypatch: pytest.MonkeyPatch):
    now = botocore.auth.get_current_datetime
    monkeypatch.setattr(
        botocore.auth, "get_current_datetime", lambda *a, **k: now(*a, **k) + datetime.timedelta(hours=3)
    )
    with refused(ClockSkewed, "clocks are too far apart", exit_code=6):
        hasty(s3_address).list("")


def test_bytes_that_changed_on_the_way_to_the_server(s3_address: str):
    store = hasty(s3_address)

    def tamper(request, **_kwargs):
        request.headers.replace_header("x-amz-checksum-sha256", "A" * 43 + "=")

    store.client.meta.events.register("before-sign.s3.PutObject", tamper)
    with refused(ObjectDamaged, "k: its bytes are not those that were put", exit_code=5):
        store.put("k", b"data")
    assert store.get("k") is None


@pytest.mark.parametrize("size", [10, PART_BYTES])
def test_bytes_that_changed_in_the_store(s3_address: str, size: int):
    store = hasty(s3_address)
    name = f"{store.prefix}k"
    store.client.put_object(Bucket=BUCKET, Key=name, Body=bytes(size), Metadata={SHA256: "0" * 64})
    with refused(ObjectDamaged, "k: its bytes are not those that were put", exit_code=5):
        store.get("k")
    with refused(ObjectDamaged, "k: its bytes are not those that were put", exit_code=5):
        list(store.pieces("k"))


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
def test_a_server_that_ignores_a_condition_is_refused_before_anything_is_written(s3_address: str, header: str):
    store = hasty(s3_address)

    def ignore(request, **_kwargs):
        del request.headers[header]

    store.client.meta.events.register("before-sign.s3.PutObject", ignore)
    with refused(StoreUnfit, f"it ignores {header}", exit_code=2):
        store.put("k", b"x", if_absent=True)
    with refused(StoreUnfit, "cannot keep a registry", exit_code=2):
        prove(store)
    assert store.list("") == []


class LostAnswers(S3Store):
    """The first writes reach the server; their answers do not come back."""

    lost = 1
    error: Exception = ConnectionClosedError(endpoint_url="http://lost")

    def _send(self, name: str, data: bytes, mine: str, **conditions: str) -> object:
        answer = super()._send(name, data, mine, **conditions)
        if mine and self.lost:
            self.lost -= 1
            raise self.error
        return answer


@pytest.mark.parametrize("lost", [1, 2])
def test_a_refusal_of_our_own_write_is_not_believed(s3_address: str, lost: int):
    plain = hasty(s3_address)
    store = LostAnswers(plain.bucket, plain.prefix, HASTY)
    store.lost = lost
    etag = store.put("k", b"first", if_absent=True)
    assert etag == plain.get("k").etag
    store.lost = lost
    store.error = ReadTimeoutError(endpoint_url="http://lost")
    second = store.put("k", b"second", if_match=etag)
    assert second == plain.get("k").etag != etag


def test_a_refusal_of_somebody_else_s_equal_bytes_is_believed(s3_address: str):
    assert hasty(s3_address).put("k", b"same", if_absent=True) is not None
    assert hasty(s3_address).put("k", b"same", if_absent=True) is None


@pytest.mark.parametrize(
    "address", ["s3://", "s3://UPPER/x", "s3://key:secret@host/bucket", "s3://b", "s3://bucket?x=1"]
)
def test_a_malformed_address_is_refused_and_not_repeated(address: str):
    with pytest.raises(UsageError, match="is not s3://bucket/prefix") as told:
        open_s3(address)
    assert "secret" not in str(told.value)


def test_a_server_whose_disk_takes_no_more_is_told_and_what_it_holds_can_be_read(
    monkeypatch: pytest.MonkeyPatch,
):
    with running() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        store = hasty(f"s3://{BUCKET}/full")
        store.put("old", b"stands")
        # Its files may grow no more: a volume then answers a write as it does on a full disk.
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (2**22, 2**22))
        with refused(StoreUnreachable, "fails to write new in .*: InternalError", exit_code=6):
            store.put("new", os.urandom(2**23))
        assert store.get("new") is None
        assert store.get("old").data == b"stands"


# ── death of the client ─────────────────────────────────────────────────────


class Dying(S3Store):
    """Dies when request number `at` is about to leave, or when it was answered."""

    def __init__(self, like: S3Store, at: int, event: str) -> None:
        super().__init__(like.bucket, like.prefix, HASTY)
        self.left = at
        self._proven = True
        self.client.meta.events.register(event, self._count)

    def _count(self, **_kwargs: object) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def died(store: S3Store, at: int, event: str, path: Path) -> bool:
    child = os.fork()
    if child == 0:
        try:
            Dying(store, at, event).put_file("k", path, digest_file(path))
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("event", ["before-send.s3", "needs-retry.s3"])
def test_an_upload_killed_at_any_request_is_not_seen_or_seen_whole(s3_address: str, tmp_path: Path, event: str):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(PART_BYTES + 1))
    store, seen, at = hasty(s3_address), set(), 1
    while died(store, at, event, path):
        pieces = store.pieces("k")
        seen.add(None if pieces is None else b"".join(pieces) == path.read_bytes())
        store.delete("k")
        at += 1
    assert at == 5, "one to begin, two parts, one to end"
    assert seen == ({None} if event.startswith("before") else {None, True})
    store.put_file("k", path, digest_file(path))
    assert b"".join(store.pieces("k")) == path.read_bytes()
