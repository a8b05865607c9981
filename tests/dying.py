"""SIGKILL at one operation of a store, in a process forked for it: in a folder and on an S3 server.

In a folder an operation is a call of the store. On S3 it is a request, of which a call makes one or several.
"""

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal

from saeops.adapters import stores
from saeops.adapters.s3 import S3Store
from saeops.adapters.stores import LocalStore
from tests.forks import forked

Moment = Literal["before", "inside", "after"]
"""`before` an operation; `inside` a write, half of whose bytes are gone; `after` an operation has taken effect.

On S3 `after` is when the request is gone and nobody reads the answer: it takes effect, maybe a little later.
"""
OPERATIONS = ("get", "put", "pieces", "put_file", "list", "delete")
METHODS = (b"GET ", b"PUT ", b"HEAD ", b"POST ", b"DELETE ")


class Death:
    """Comes when it is near for the `at`-th time."""

    def __init__(self, at: int) -> None:
        self._count, self._at = itertools.count(1), at

    def comes_now(self) -> bool:
        return next(self._count) == self._at

    def near(self) -> None:
        if self.comes_now():
            die()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(act: Callable[..., object], store: LocalStore | S3Store, *args: Any, at: int, moment: Moment) -> bool:
    """Whether `act(store, …)`, in a process of its own, was killed at operation `at`; False: it ended before.

    Args:
        store: on S3 without a connection yet, or both processes would speak on it.
    """

    def work() -> None:
        _arm(store, Death(at), moment)
        act(store, *args)

    child = forked(work)
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL), "the operation failed before it could be killed"
    return child.exitcode != 0


def _arm(store: LocalStore | S3Store, death: Death, moment: Moment) -> None:
    arm = _arm_folder if isinstance(store, LocalStore) else _arm_s3
    arm(store, death, moment)  # type: ignore[arg-type]


# Only the forked process is changed: nothing needs to be put back.


def _arm_folder(store: LocalStore, death: Death, moment: Moment) -> None:
    if moment == "inside":
        _halve(store, death)
        return

    def dying(operation: Callable[..., Any]) -> Callable[..., Any]:
        def operate(*args: Any, **named: Any) -> Any:
            if moment == "before":
                death.near()
            result = operation(*args, **named)
            if moment == "after":
                death.near()
            return result

        return operate

    for name in OPERATIONS:
        setattr(store, name, dying(getattr(store, name)))


def _halve(store: LocalStore, death: Death) -> None:
    write, copy = store._write, stores._copy

    def half_written(path: Path, data: bytes) -> None:
        if death.comes_now():
            (store.root / stores.INCOMING).write_bytes(data[: len(data) // 2])
            die()
        write(path, data)

    def half_copied(path: Path, incoming: BinaryIO, sha256: str) -> None:
        if death.comes_now():
            data = path.read_bytes()
            incoming.write(data[: len(data) // 2])
            incoming.flush()
            die()
        copy(path, incoming, sha256)

    store._write = half_written  # type: ignore[method-assign]
    stores._copy = half_copied


def _arm_s3(store: S3Store, death: Death, moment: Moment) -> None:
    from botocore.awsrequest import AWSHTTPConnection

    send, answer = AWSHTTPConnection.send, AWSHTTPConnection.getresponse

    def half_sent(connection: Any, data: bytes) -> None:
        if not data.startswith(METHODS) and death.comes_now():
            send(connection, data[: len(data) // 2])
            die()
        send(connection, data)

    def unread(connection: Any, *args: Any, **named: Any) -> Any:
        death.near()
        return answer(connection, *args, **named)

    match moment:
        case "before":
            store.client.meta.events.register("before-send.s3", lambda **_: death.near())
        case "inside":
            AWSHTTPConnection.send = half_sent
        case "after":
            AWSHTTPConnection.getresponse = unread
