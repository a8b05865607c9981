"""What a monitor saw, as parquet files that are whole or absent. Format: docs/formats/firings.md."""

import datetime
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from saeops.files import explained, write_atomic

FORMAT = 1
COLUMNS = pa.schema(
    [
        ("at", pa.timestamp("ms", tz="UTC")),
        ("sequence", pa.int64()),
        ("position", pa.int32()),
        ("token", pa.int32()),
        ("latent", pa.int32()),
        ("activation", pa.float32()),
    ]
)
Clock = Callable[[], datetime.datetime]


@dataclass(frozen=True)
class Rotation:
    """When a file is written, and how many are kept."""

    rows: int = 200_000
    """Rows in memory at most; about 6 MB."""
    seconds: float = 60.0
    """Age of the oldest row in memory at most, looked at in each forward pass."""
    files: int = 1_000
    """Files kept in the folder; the oldest go first."""

    def __post_init__(self) -> None:
        assert self.rows > 0
        assert self.seconds > 0
        assert self.files > 0


class FiringFiles:
    """Rows collected in memory and written as one file at a time; a kill loses those in memory, no more."""

    def __init__(self, folder: Path, facts: Mapping[str, Any], rotation: Rotation, clock: Clock) -> None:
        self._folder, self._rotation, self._clock = folder, rotation, clock
        self._schema = COLUMNS.with_metadata({"saeops": json.dumps({"format": FORMAT, **facts}, sort_keys=True)})
        self._parts: list[dict[str, Any]] = []
        self._rows, self._files, self._since = 0, 0, clock()
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def add(self, columns: Mapping[str, np.ndarray]) -> None:
        """Take the rows of one forward pass, all columns but `at`; writes a file when it is time.

        Raises:
            DiskFull, StoreDenied: the folder cannot be written; the rows are still in memory.
        """
        now = self._clock()
        start, count = 0, len(columns["latent"])
        self._since = now if not self._rows else self._since
        while start < count:
            stop = min(count, start + self._rotation.rows - self._rows)
            self._parts.append({"at": now, **{name: column[start:stop] for name, column in columns.items()}})
            self._rows += stop - start
            start = stop
            if self._rows == self._rotation.rows:
                self.write()
        if (now - self._since).total_seconds() >= self._rotation.seconds:
            self.write()

    def write(self) -> None:
        """Put what is in memory into a file; nothing where there is nothing."""
        if not self._rows:
            return
        tables = [_table(part, self._schema) for part in self._parts]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.concat_tables(tables), sink, compression="zstd")
        stamp = self._clock().strftime("%Y%m%dT%H%M%S.%fZ")
        write_atomic(self._folder / f"firings-{stamp}-{os.getpid()}-{self._files:06d}.parquet", sink.getvalue())
        self._parts, self._rows = [], 0
        self._files += 1
        for old in sorted(self._folder.glob("firings-*.parquet"))[: -self._rotation.files]:
            old.unlink(missing_ok=True)


def _table(part: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    at = pa.repeat(pa.scalar(part["at"], schema.field("at").type), len(part["latent"]))
    rest = [pa.array(part[field.name]).cast(field.type) for field in list(schema)[1:]]
    return pa.Table.from_arrays([at, *rest], schema=schema)
