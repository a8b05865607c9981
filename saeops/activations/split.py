"""Split by document, once: a hash of the document decides, so a rerun or a longer corpus moves nobody."""

import hashlib
from typing import Literal, get_args

from pydantic import model_validator

from saeops.config import Frozen

Split = Literal["train", "eval", "explain", "score", "panel"]
SPLITS: tuple[Split, ...] = get_args(Split)


class SplitFractions(Frozen):
    """The share of documents in each split; they sum to 1."""

    train: float = 0.6
    """Trains the SAE."""
    eval: float = 0.1
    """Measures the SAE: reconstruction, sparsity, fidelity."""
    explain: float = 0.15
    """Shows a labeller what a latent does."""
    score: float = 0.12
    """Tests a label, on documents that explained nothing."""
    panel: float = 0.03
    """Neutral text on which interventions must change little."""

    @model_validator(mode="after")
    def _sum_to_one(self) -> "SplitFractions":
        values = [getattr(self, split) for split in SPLITS]
        if any(v <= 0 for v in values) or abs(sum(values) - 1) > 1e-9:
            raise ValueError(f"fractions must be positive and sum to 1, not {sum(values):g}")
        return self


def assign_split(text: str, fractions: SplitFractions, *, seed: int) -> Split:
    """The split of a document, from a hash of its text alone."""
    digest = hashlib.sha256(f"{seed}\0{text}".encode("utf-8", "surrogatepass")).digest()
    point = int.from_bytes(digest[:8], "big") / 2**64
    for split in SPLITS:
        point -= getattr(fractions, split)
        if point < 0:
            return split
    return "panel"
