"""The formats by name, and the files each of them consists of. Normative: docs/formats/foreign.md."""

from enum import StrEnum
from pathlib import Path


class Format(StrEnum):
    """Whose folder it is. Never guessed: whoever imports names it."""

    SAELENS = "saelens"
    SPARSIFY = "sparsify"
    DICTIONARY_LEARNING = "dictionary_learning"
    GEMMA_SCOPE = "gemma_scope"


class Results(StrEnum):
    """Whose files of results are written."""

    SAEBENCH = "saebench"


FILES = {
    Format.SAELENS: ("cfg.json", "sae_weights.safetensors"),
    Format.SPARSIFY: ("cfg.json", "sae.safetensors"),
    Format.DICTIONARY_LEARNING: ("config.json", "ae.pt"),
    Format.GEMMA_SCOPE: ("params.npz",),
}


def looks_like(folder: Path) -> Format | None:
    """The format whose files all lie in the folder, for a hint; None where there is no such format."""
    for name, files in FILES.items():
        if all((folder / file).is_file() for file in files):
            return name
    return None
