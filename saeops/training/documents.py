"""Which documents an SAE was trained on, kept with it, so that no evaluation shares them unseen.

Format: docs/formats/sae.md.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import pandera.pandas as pa
from pandera.typing import Series

from saeops.errors import DocumentsShared
from saeops.tables import read_table

if TYPE_CHECKING:
    import pandas as pd

DOCUMENTS = "documents.parquet"
DIGITS = 32
"""Hexadecimal digits kept of each sha256: 16 bytes, enough to tell documents apart."""


class TrainedDocumentTable(pa.DataFrameModel):
    """documents.parquet of an SAE folder: one row a document, in ascending order."""

    sha256: Series[str] = pa.Field(str_matches=f"^[0-9a-f]{{{DIGITS}}}$", unique=True)
    """The first digits of the sha256 of its text."""

    class Config:
        strict = True


def trained_documents(documents: "pd.DataFrame") -> "pd.DataFrame":
    """TrainedDocumentTable of an activation set's DocumentTable: its train split."""
    import pandas as pd

    trained = documents.loc[documents["split"] == "train", "sha256"].str[:DIGITS]
    return pd.DataFrame({"sha256": pd.Series(sorted(trained), dtype="str")})


def read_trained(folder: Path) -> "pd.DataFrame | None":
    """What an SAE folder records; None of an imported SAE, or one of format version 1.

    Raises:
        FolderDamaged: a table that is none.
    """
    path = folder / DOCUMENTS
    return read_table(path, TrainedDocumentTable) if path.exists() else None


def check_unseen(trained: "pd.DataFrame", documents: "pd.DataFrame", *, place: Path) -> None:
    """Refuse held-out documents that trained the SAE.

    Args:
        trained: TrainedDocumentTable.
        documents: DocumentTable; all of it but the train split is held out.
        place: of the activation set, for the error.

    Raises:
        DocumentsShared: says how many there are, and names one.
    """
    held_out = documents[documents["split"] != "train"]
    shared = held_out[held_out["sha256"].str[:DIGITS].isin(trained["sha256"])]
    if shared.empty:
        return
    first = shared.iloc[0]
    raise DocumentsShared(
        f"{len(shared)} of {len(held_out)} held-out documents in {place} trained the SAE,"
        f" e.g. {first['source']} ({first['split']}, sha256 {first['sha256'][:12]})",
        hint="run `saeops train` on these activations, or `saeops harvest` with the seed and splits it had then",
    )
