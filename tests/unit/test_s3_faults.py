"""Classes of S3's errors: what is tried again, what is told, and with which exit code."""

import pytest
from botocore import exceptions as boto
from botocore.exceptions import ClientError

from saeops.adapters.s3_faults import Garbled, Place, again, explain, is_refused
from saeops.errors import (
    ClockSkewed,
    DiskFull,
    LostRace,
    ObjectDamaged,
    SaeopsError,
    StoreDenied,
    StoreMissing,
    StoreUnfit,
    StoreUnreachable,
)

PLACE = Place("s3://reg/prefix", "http://s3.test", "reg")
WHERE = {"endpoint_url": "http://s3.test"}


def answered(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")


BROKEN = [
    boto.EndpointConnectionError(**WHERE),
    boto.ConnectTimeoutError(**WHERE),
    boto.ReadTimeoutError(**WHERE),
    boto.ConnectionClosedError(**WHERE),
    boto.ProxyConnectionError(proxy_url="http://proxy.test"),
    boto.ResponseStreamingError(error="cut"),
    boto.IncompleteReadError(actual_bytes=1, expected_bytes=2),
]
FLEETING = [
    answered("InternalError", 500),
    answered("502", 502),
    answered("SlowDown", 503),
    answered("504", 504),
    answered("TooManyRequests", 429),
    answered("RequestTimeout", 400),
]
FINAL = [
    (boto.SSLError(**WHERE, error="certificate"), StoreUnreachable, 6),
    (boto.NoCredentialsError(), StoreDenied, 6),
    (boto.PartialCredentialsError(provider="env", cred_var="secret"), StoreDenied, 6),
    (answered("InvalidAccessKeyId", 403), StoreDenied, 6),
    (answered("ExpiredToken", 400), StoreDenied, 6),
    (answered("AccessDenied", 403), StoreDenied, 6),
    (answered("403", 403), StoreDenied, 6),
    (answered("RequestTimeTooSkewed", 403), ClockSkewed, 6),
    (answered("NoSuchBucket", 404), StoreMissing, 6),
    (answered("InsufficientStorage", 507), DiskFull, 6),
    (answered("XMinioStorageFull", 503), DiskFull, 6),
    (answered("QuotaExceeded", 403), DiskFull, 6),
    (answered("NotImplemented", 501), StoreUnfit, 2),
    (answered("PermanentRedirect", 301), StoreUnreachable, 6),
]


def told(error: Exception) -> SaeopsError:
    found = explain(error, PLACE, "write", "names/a/champion.json")
    assert found.hint
    return found


@pytest.mark.parametrize("error", BROKEN + FLEETING, ids=str)
def test_what_may_pass_is_tried_again_and_then_called_unreachable(error: Exception):
    assert again(error)
    assert not is_refused(error)
    assert (type(told(error)), told(error).exit_code) == (StoreUnreachable, 6)


@pytest.mark.parametrize(("error", "meant", "exit_code"), FINAL, ids=lambda value: str(value)[:60])
def test_what_cannot_pass_is_told_at_once(error: Exception, meant: type[SaeopsError], exit_code: int):
    assert not again(error)
    assert not is_refused(error)
    assert (type(told(error)), told(error).exit_code) == (meant, exit_code)


@pytest.mark.parametrize("code", ["ConditionalRequestConflict", "OperationAborted"])
def test_a_conflict_is_tried_again_and_then_is_a_lost_race(code: str):
    assert again(answered(code, 409))
    assert type(told(answered(code, 409))) is LostRace


@pytest.mark.parametrize("error", [Garbled(), answered("BadDigest", 400)], ids=str)
def test_a_wrong_checksum_is_tried_again_and_then_is_damage(error: Exception):
    assert again(error)
    assert (type(told(error)), told(error).exit_code) == (ObjectDamaged, 5)


@pytest.mark.parametrize("error", [answered("PreconditionFailed", 412), answered("NoSuchKey", 404)], ids=str)
def test_a_condition_that_did_not_hold_is_a_refusal_and_final(error: ClientError):
    assert is_refused(error)
    assert not again(error)
