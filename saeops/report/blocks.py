"""Data inside the page: JSON, gzipped, in base64, so that nothing in it can end the element it stands in."""

import base64
import gzip
import json
import math
from typing import Any


def pack(value: Any) -> str:
    """JSON as one line of base64 gzip; equal values give equal text.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), 6, mtime=0)).decode("ascii")


def unpack(block: str) -> Any:
    """What `pack` was given."""
    return json.loads(gzip.decompress(base64.b64decode(block)))


def rounded(value: float | None, digits: int = 4) -> float | None:
    """Significant digits enough for a reader; None for what is unknown or no number."""
    if value is None or not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
