"""The bundle's format, for those who need its names and not its tables. Normative: docs/formats/bundle.md."""

from saeops.errors import FormatUnknown
from saeops.sealed import Sealed

KIND = "bundle"
VERSION = 1
PARTS = ("sae", "catalog", "labels", "effects", "diagnostics")
"""Sealed folders that a bundle holds whole, each with its own manifest."""
REVIEWS = "reviews.jsonl"
PROVENANCE = "provenance.json"


def check_version(manifest: Sealed) -> Sealed:
    """The bundle's manifest, if this saeops reads its format.

    Raises:
        FormatUnknown: another version wrote it.
    """
    if manifest.version != VERSION:
        raise FormatUnknown(
            f"{manifest.path} is a bundle in format {manifest.version}, this saeops reads format {VERSION}",
            hint="use the saeops release that wrote it, or build it again",
        )
    return manifest
