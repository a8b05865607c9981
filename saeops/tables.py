"""Tables that cross a stage: parquet files, checked by pandera on the way out and in.

pandera lets an empty frame pass everything and `gt=0` lets infinity pass, so
row counts and finiteness are checked here for every table.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from saeops.errors import FolderDamaged, NonFinite
from saeops.files import explained

if TYPE_CHECKING:
    import pandas as pd
    import pandera.pandas as pa


def check_table(
    frame: "pd.DataFrame", schema: "type[pa.DataFrameModel]", *, rows: int | None = None, name: str = "table"
) -> "pd.DataFrame":
    """The frame, if it fits the schema, has the rows expected and holds only finite floats.

    Args:
        rows: the exact number of rows, or None where any number from one up will do.

    Raises:
        FolderDamaged: columns, types, values or the number of rows differ.
        NonFinite: a float is NaN or infinite in a column the schema does not call nullable.
    """
    import numpy as np
    import pandas as pd
    import pandera.errors

    if rows is not None and len(frame) != rows:
        raise FolderDamaged(f"{name}: {len(frame)} rows where {rows} belong", hint="run its stage again")
    if rows is None and frame.empty:
        raise FolderDamaged(f"{name}: no rows", hint="run its stage again with more data")
    nullable = {column for column, spec in schema.to_schema().columns.items() if spec.nullable}
    floats = [column for column in frame if pd.api.types.is_float_dtype(frame[column])]
    for column in (column for column in floats if column not in nullable):
        bad = int((~np.isfinite(frame[column].to_numpy())).sum())
        if bad:
            raise NonFinite(f"{name}.{column}: {bad} values are NaN or infinite", hint="see the stage's log")
    try:
        return schema.validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as error:
        cases = error.failure_cases[["column", "check", "failure_case"]].head(5).to_string(index=False)
        raise FolderDamaged(f"{name} does not fit its schema:\n{cases}", hint="run its stage again") from error


def write_table(
    frame: "pd.DataFrame", path: Path, schema: "type[pa.DataFrameModel]", *, rows: int | None = None
) -> None:
    """Check, then write parquet: equal frames give equal bytes."""
    checked = check_table(frame, schema, rows=rows, name=path.name)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        checked.to_parquet(path, index=False, compression="zstd")


def read_table(
    path: Path, schema: "type[pa.DataFrameModel]", *, rows: int | None = None, columns: list[str] | None = None
) -> "pd.DataFrame":
    """Read parquet and check it; with `columns`, only those (and then unchecked)."""
    import pandas as pd

    frame = pd.read_parquet(path, columns=columns)
    return frame if columns else check_table(frame, schema, rows=rows, name=path.name)
