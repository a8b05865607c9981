"""Whether an object store holds to its conditions, also when writers race."""

import contextlib
import uuid
from concurrent.futures import ThreadPoolExecutor

from saeops.errors import StoreUnfit
from saeops.ports import ObjectStore

WRITERS, ROUNDS = 8, 3


def prove(store: ObjectStore) -> None:
    """Write, overwrite and delete an object beside the names, on condition and at once.

    Losing a race is a matter of luck, so a store can be unfit and pass; none is fit and fails.

    Raises:
        StoreUnfit: a condition that did not hold was ignored, or two writers were both told that they won.
        Unavailable: the store does not answer, or says no.
    """
    key = f"names/probe-{uuid.uuid4().hex}"
    try:
        etag = store.put(key, b"0", if_absent=True)
        if etag is None or store.put(key, b"1", if_absent=True) is not None:
            raise _unfit(store, "a second write of what must be absent was not refused")
        second = store.put(key, b"2", if_match=etag)
        if second is None or store.put(key, b"3", if_match=etag) is not None:
            raise _unfit(store, "a write that names an old ETag was not refused")
        for turn in range(ROUNDS):
            second = _race(store, key, second, turn)
    finally:
        with contextlib.suppress(
            Exception
        ):  # a store that may not delete is fit; the first error is the one to tell
            store.delete(key)


def _race(store: ObjectStore, key: str, etag: str, turn: int) -> str:
    offers = [f"{turn}.{writer}".encode() for writer in range(WRITERS)]
    with ThreadPoolExecutor(WRITERS) as pool:
        answers = list(pool.map(lambda data: store.put(key, data, if_match=etag), offers))
    won = [(data, answer) for data, answer in zip(offers, answers, strict=True) if answer is not None]
    found = store.get(key)
    if len(won) != 1 or found is None or (found.data, found.etag) != won[0]:
        raise _unfit(store, f"of {WRITERS} writers that named the same ETag, {len(won)} were told that they won")
    return found.etag


def _unfit(store: ObjectStore, what: str) -> StoreUnfit:
    return StoreUnfit(
        f"{store.address} cannot keep a registry: {what}",
        hint="use a folder, or an S3 server that honours If-Match and If-None-Match on PutObject",
    )
