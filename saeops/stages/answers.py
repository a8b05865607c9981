"""What references meant when the store was last asked, kept beside the cached bundles.

A dictionary that was loaded once can then be loaded while the store is away.
"""

import contextlib
import datetime
from pathlib import Path

from pydantic import ValidationError

from saeops.config import Frozen
from saeops.digests import digest_json
from saeops.errors import DiskFull, StoreDenied
from saeops.files import write_atomic


class Answer(Frozen):
    """What a reference means."""

    store: str
    """Address of the store that said so."""
    reference: str
    digest: str
    """Of the bundle it means."""
    at: datetime.datetime
    """When the store was asked."""
    name: str | None = None
    """Whose pointer the answer hangs on; None where the reference always means this bundle."""
    etag: str | None = None
    """Of that pointer."""

    def age(self, now: datetime.datetime) -> str:
        """How old it is, in words."""
        minutes = max(0, round((now - self.at).total_seconds() / 60))
        if minutes < 120:
            return f"{minutes} minute{'' if minutes == 1 else 's'}"
        hours = minutes // 60
        return f"{hours} hours" if hours < 48 else f"{hours // 24} days"


def remember(cache: Path, answer: Answer) -> None:
    """Keep an answer whose bundle is in the cache, under its reference and under the digest."""
    pinned = answer.model_copy(update={"reference": answer.digest, "name": None, "etag": None})
    for each in (answer, pinned):
        # A cache that cannot be written serves what it has.
        with contextlib.suppress(StoreDenied, DiskFull):
            write_atomic(_path(cache, each.store, each.reference), each.model_dump_json().encode() + b"\n")


def recall(cache: Path, store: str, reference: str) -> Answer | None:
    """The last answer kept, if there is one that can be read."""
    try:
        return Answer.model_validate_json(_path(cache, store, reference).read_bytes())
    except (OSError, ValidationError):
        return None


def _path(cache: Path, store: str, reference: str) -> Path:
    return cache / "answers" / f"{digest_json([store, reference])}.json"
