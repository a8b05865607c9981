"""Loading a dictionary: find it, verify every byte, keep a local copy."""

from pathlib import Path

from saeops.dictionary.bundle import Bundle, open_bundle
from saeops.dictionary.handle import Dictionary
from saeops.ports import ObjectStore
from saeops.sealed import MANIFEST
from saeops.stages.registry import resolve
from saeops.stages.transfer import fetch


def run(reference: str, *, store: ObjectStore, cache: Path) -> Dictionary:
    """The dictionary that a reference means: `find`, ready to use."""
    return Dictionary(find(reference, store=store, cache=cache))


def find(reference: str, *, store: ObjectStore, cache: Path) -> Bundle:
    """The bundle that a reference means.

    Args:
        reference: `name@champion`, `name@previous`, `name@<seq>`, a digest, or a bundle's folder.

    Raises:
        NameUnknown, VersionUnknown: it means none.
        FolderDamaged: a file of it is missing, extra, or changed; names it.
        FormatUnknown: sealed by a newer saeops.
    """
    folder = Path(reference)
    if "@" in reference or not (folder / MANIFEST).is_file():
        folder = fetch(store, resolve(store, reference), cache)
    return open_bundle(folder)
