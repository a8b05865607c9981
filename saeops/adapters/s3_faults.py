"""What goes wrong with S3, by class: what is tried again, what is a refusal, and what a person is told."""

from dataclasses import dataclass
from http import HTTPStatus

from botocore import exceptions as boto
from botocore.exceptions import ClientError

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

BROKEN = boto.ConnectionError | boto.HTTPClientError | boto.IncompleteReadError
"""Connections that are not made, time out, or break off."""
AGAIN_STATUS = {429, 500, 502, 503, 504}
CONFLICT = {"ConditionalRequestConflict", "OperationAborted"}
CREDENTIALS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "ExpiredToken",
    "ExpiredTokenException",
    "TokenRefreshRequired",
}
FULL = {"InsufficientStorage", "XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded"}
CHECKSUM = {"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "InvalidDigest"}
DENIED_HINT = (
    "grant s3:GetObject, PutObject, DeleteObject and ListBucket there; "
    "without ListBucket, S3 denies what is only absent"
)
CREDENTIALS_HINT = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN) for this store"


class Garbled(Exception):
    """Bytes that do not have the sha256 that was put with them."""


@dataclass(frozen=True)
class Place:
    """Where a request went, as far as it may be shown: no secret is in it."""

    address: str
    endpoint: str
    bucket: str


def code(error: BaseException) -> str:
    return str(error.response["Error"].get("Code", "")) if isinstance(error, ClientError) else ""


def status(error: BaseException) -> int:
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_absent(error: BaseException) -> bool:
    """There is no such object. A HEAD answers without a body, so its code is the bare number."""
    return code(error) in {"NoSuchKey", "404", "NotFound"}


def is_refused(error: BaseException) -> bool:
    """A condition did not hold. AWS answers If-Match on an absent object with NoSuchKey."""
    return (
        code(error) == "PreconditionFailed" or status(error) == HTTPStatus.PRECONDITION_FAILED or is_absent(error)
    )


def again(error: BaseException) -> bool:
    """Whether the same request can succeed a moment later."""
    if isinstance(error, boto.SSLError):
        return False
    if isinstance(error, ClientError):
        fleeting = code(error) in CONFLICT | CHECKSUM | {"RequestTimeout", "SlowDown"}
        return (fleeting or status(error) in AGAIN_STATUS) and code(error) not in FULL
    return isinstance(error, BROKEN | Garbled)


def explain(error: Exception, place: Place, verb: str, key: str) -> SaeopsError:
    """The one error that a person meets, with nothing in it that botocore was told in confidence."""
    what = f"{verb} {key or 'the bucket'} in {place.address}"
    if isinstance(error, Garbled) or code(error) in CHECKSUM:
        return ObjectDamaged(
            f"{place.address}: {key}: its bytes are not those that were put",
            hint="restore this object from a backup; where every object is so, look for a proxy on the way",
        )
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError | boto.CredentialRetrievalError):
        return StoreDenied(f"no credentials for {place.address} in the environment", hint=CREDENTIALS_HINT)
    if not isinstance(error, ClientError):
        return StoreUnreachable(
            f"{place.endpoint} does not answer: {type(error).__name__} (to {what})",
            hint="check AWS_ENDPOINT_URL and the network, then run the same command again: it looks first",
        )
    return _answered(error, place, what, key)


def _answered(error: ClientError, place: Place, what: str, key: str) -> SaeopsError:
    name, number = code(error), status(error)
    if name == "RequestTimeTooSkewed":
        return ClockSkewed(
            f"{place.endpoint} refuses requests from this machine: the two clocks are too far apart",
            hint="set this machine's clock (S3 allows 15 minutes), then run the same command again",
        )
    if name == "NoSuchBucket":
        return StoreMissing(
            f"there is no bucket {place.bucket} at {place.endpoint}",
            hint="create it, or mend SAEOPS_STORE and AWS_ENDPOINT_URL",
        )
    if name in CREDENTIALS:
        return StoreDenied(f"{place.endpoint} does not accept these credentials ({name})", hint=CREDENTIALS_HINT)
    if name in FULL or number == HTTPStatus.INSUFFICIENT_STORAGE:
        return DiskFull(f"no room left to {what} ({name})", hint="make room there and run the same command again")
    if number in {401, 403}:
        return StoreDenied(f"no permission to {what} ({name})", hint=DENIED_HINT)
    if name in CONFLICT:
        return LostRace(f"others kept writing {key} in {place.address}", hint="run the same command again")
    if name == "NotImplemented" or number == HTTPStatus.NOT_IMPLEMENTED:
        return unfit(place, f"it cannot {what}")
    return StoreUnreachable(
        f"{place.endpoint} fails to {what}: {name or number}",
        hint="look into the server's log (is its disk full?), and run the same command again: it looks first",
    )


def unfit(place: Place, what: str) -> StoreUnfit:
    return StoreUnfit(
        f"{place.endpoint} cannot keep a registry: {what}",
        hint="use a store that honours If-Match and If-None-Match on PutObject (AWS S3, MinIO, SeaweedFS, …)",
    )
