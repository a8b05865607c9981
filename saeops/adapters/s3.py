"""S3, or any server that speaks it, as an object store. Normative: docs/formats/store.md."""

import base64
import hashlib
import re
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from saeops.adapters import s3_faults as faults
from saeops.adapters.s3_client import Patience, make_client, shown
from saeops.adapters.s3_faults import Garbled, Place
from saeops.adapters.stores import PIECE_BYTES, check_key, not_that_file
from saeops.digests import digest_bytes, digest_file
from saeops.errors import UsageError
from saeops.ports import Found

T = TypeVar("T")

ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?")
PART_BYTES = 16 * 2**20
MAX_PARTS = 10_000
"""S3's own bound on the parts of one upload."""
PARTS_AT_ONCE = 4
SHA256, WRITE = "saeops-sha256", "saeops-write"
"""Metadata: the digest of the whole object, and which call wrote it."""
PROBE = "names/.probe"
"""Beside what it protects: whoever may write there may write this."""
NO_ETAG = '"' + "0" * 32 + '"'


def open_s3(address: str, patience: Patience | None = None) -> "S3Store":
    """The store at s3://bucket/prefix, on the endpoint that AWS_ENDPOINT_URL names (else AWS).

    Raises:
        UsageError: the address is malformed.
    """
    match = ADDRESS.fullmatch(address.rstrip("/"))
    if match is None:
        # It may hold a key and a secret, so it is not repeated.
        raise UsageError(
            "SAEOPS_STORE begins with s3:// but is not s3://bucket/prefix",
            hint="the endpoint goes into AWS_ENDPOINT_URL, credentials into AWS_ACCESS_KEY_ID and its like",
        )
    prefix = f"{check_key(match[2])}/" if match[2] else ""
    return S3Store(match[1], prefix, patience or Patience())


class S3Store:
    """A bucket, or what lies under one prefix of it, as an object store. An etag is S3's own."""

    def __init__(self, bucket: str, prefix: str, patience: Patience) -> None:
        self.bucket, self.prefix, self.patience = bucket, prefix, patience
        self.address = f"s3://{bucket}/{prefix}".rstrip("/")
        self._proven = False

    def __repr__(self) -> str:
        return f"S3Store({self.address!r})"

    @cached_property
    def client(self) -> Any:
        return make_client(self.patience)

    def get(self, key: str) -> Found | None:
        name = self._name(key)

        def attempt() -> Found | None:
            try:
                answer = self.client.get_object(Bucket=self.bucket, Key=name)
                data = answer["Body"].read()
            except ClientError as error:
                if faults.is_absent(error):
                    return None
                raise
            if answer["Metadata"].get(SHA256, digest_bytes(data)) != digest_bytes(data):
                raise Garbled
            return Found(data, answer["ETag"])

        return self._again(attempt, "read", key)

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str | None:
        name = self._name(key)
        if if_match is None and not if_absent:
            return self._again(lambda: self._send(name, data, "")["ETag"], "write", key)
        self._prove()
        mine = uuid.uuid4().hex
        condition = {"IfMatch": if_match} if if_match is not None else {"IfNoneMatch": "*"}

        def attempt() -> str | None:
            try:
                return str(self._send(name, data, mine, **condition)["ETag"])
            except ClientError as error:
                if not faults.is_refused(error):
                    raise
                # It may be the echo of our own write, whose answer was lost.
                return self._written_by(name, mine)

        return self._again(attempt, "write", key)

    def pieces(self, key: str) -> Iterator[bytes] | None:
        head = self._again(lambda: self._head(self._name(key)), "read", key)
        return None if head is None else self._ranges(key, head)

    def put_file(self, key: str, path: Path, sha256: str) -> None:
        if digest_file(path) != sha256:
            raise not_that_file(path)
        name, size = self._name(key), path.stat().st_size
        if size <= PART_BYTES:
            self._again(lambda: self._send(name, path.read_bytes(), ""), "write", key)
        else:
            self._upload(key, path, sha256, max(PART_BYTES, -(-size // MAX_PARTS)), size)

    def list(self, prefix: str) -> "list[str]":
        return sorted(self.sizes(prefix))

    def sizes(self, prefix: str) -> dict[str, int]:
        def attempt() -> dict[str, int]:
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix + prefix
            )
            return {entry["Key"]: int(entry["Size"]) for page in pages for entry in page.get("Contents", [])}

        found = self._again(attempt, "list", prefix)
        keys = ((name.removeprefix(self.prefix), size) for name, size in found.items())
        return {key: size for key, size in keys if key != PROBE and not key.startswith(".")}

    def delete(self, key: str) -> None:
        name = self._name(key)
        self._again(lambda: self.client.delete_object(Bucket=self.bucket, Key=name), "delete", key)

    # ── requests ────────────────────────────────────────────────────────────

    def _name(self, key: str) -> str:
        return self.prefix + check_key(key)

    def _send(self, name: str, data: bytes, mine: str, **conditions: str) -> Any:
        metadata = {SHA256: digest_bytes(data)} | ({WRITE: mine} if mine else {})
        return self.client.put_object(
            Bucket=self.bucket, Key=name, Body=data, ChecksumSHA256=_sha256(data), Metadata=metadata, **conditions
        )

    def _head(self, name: str) -> Any:
        try:
            return self.client.head_object(Bucket=self.bucket, Key=name)
        except ClientError as error:
            if faults.is_absent(error):
                return None
            raise

    def _written_by(self, name: str, mine: str) -> str | None:
        head = self._head(name)
        return str(head["ETag"]) if head and head["Metadata"].get(WRITE) == mine else None

    def _ranges(self, key: str, head: Any) -> Iterator[bytes]:
        size, digest = int(head["ContentLength"]), hashlib.sha256()
        for start in range(0, size, PIECE_BYTES):
            last = min(start + PIECE_BYTES, size) - 1

            def attempt(asked: str = f"bytes={start}-{last}", length: int = last - start + 1) -> bytes:
                answer = self.client.get_object(
                    Bucket=self.bucket, Key=self._name(key), Range=asked, IfMatch=head["ETag"]
                )
                data = answer["Body"].read()
                if len(data) != length:
                    raise Garbled
                return bytes(data)

            piece = self._again(attempt, "read", key)
            digest.update(piece)
            yield piece
        if head["Metadata"].get(SHA256, digest.hexdigest()) != digest.hexdigest():
            raise faults.explain(Garbled(), self._place, "read", key)

    def _upload(self, key: str, path: Path, sha256: str, part_bytes: int, size: int) -> None:
        where = {"Bucket": self.bucket, "Key": self._name(key)}
        started = self._again(
            lambda: self.client.create_multipart_upload(
                **where, ChecksumAlgorithm="SHA256", Metadata={SHA256: sha256}
            ),
            "write",
            key,
        )
        upload = {**where, "UploadId": started["UploadId"]}

        def send(number: int) -> dict[str, Any]:
            with path.open("rb") as file:
                file.seek((number - 1) * part_bytes)
                data = file.read(part_bytes)
            named = {"PartNumber": number, "ChecksumSHA256": _sha256(data)}
            answer = self._again(lambda: self.client.upload_part(**upload, **named, Body=data), "write", key)
            return {**named, "ETag": answer["ETag"]}

        try:
            with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
                parts = list(pool.map(send, range(1, -(-size // part_bytes) + 1)))
            self._again(lambda: self._complete(upload, parts, where["Key"], sha256), "write", key)
        except BaseException:
            self._abort(upload)
            raise

    def _complete(self, upload: dict[str, str], parts: "list[dict[str, Any]]", name: str, sha256: str) -> None:
        try:
            self.client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        except ClientError as error:
            # After a lost answer there is no such upload any more, but the object.
            if faults.code(error) != "NoSuchUpload":
                raise
            head = self._head(name)
            if head is None or head["Metadata"].get(SHA256) != sha256:
                raise

    def _abort(self, upload: dict[str, str]) -> None:
        try:
            self.client.abort_multipart_upload(**upload)
        except (ClientError, BotoCoreError):
            return  # the bucket's lifecycle rule clears it away; the first error is the one to tell

    # ── whether it can be trusted, and what to say where not ────────────────

    def _prove(self) -> None:
        """Before the first conditional write of a process: conditions that cannot hold must be refused."""
        if self._proven:
            return
        held = [
            self._refuses(IfNoneMatch="*") or self._refuses(IfNoneMatch="*"),
            self._refuses(IfMatch=NO_ETAG),
        ]
        for holds, header in zip(held, ("If-None-Match", "If-Match"), strict=True):
            if not holds:
                raise faults.unfit(self._place, f"it ignores {header}, so promotions could overwrite one another")
        self._proven = True

    def _refuses(self, **condition: str) -> bool:
        def attempt() -> bool:
            try:
                self._send(self.prefix + PROBE, b"", "", **condition)
            except ClientError as error:
                if faults.is_refused(error):
                    return True
                raise
            return False

        return self._again(attempt, "write", PROBE)

    @property
    def _place(self) -> Place:
        return Place(self.address, shown(self.client.meta.endpoint_url), self.bucket)

    def _again(self, attempt: Callable[[], T], verb: str, key: str) -> T:
        retrying = Retrying(
            retry=retry_if_exception(faults.again),
            wait=wait_random_exponential(multiplier=0.1, max=2),
            stop=stop_after_delay(self.patience.again_s),
            reraise=True,
        )
        try:
            return retrying(attempt)
        except (ClientError, BotoCoreError, Garbled) as error:
            raise faults.explain(error, self._place, verb, key) from error


def _sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()
