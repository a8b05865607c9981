"""What the registry keeps of an audit: one immutable record. Format: docs/formats/audit.md."""

from typing import Literal

from saeops.config import Frozen
from saeops.promotion.journal import Record, parse_record

AuditOutcome = Literal["ok", "warn", "drift"]
LatentVerdict = Literal["kept", "weakened", "changed", "lost"]


class LatentCounts(Frozen):
    """How many latents got each verdict; those that fired too seldom to tell are in none of the four."""

    kept: int = 0
    weakened: int = 0
    changed: int = 0
    lost: int = 0
    too_few: int = 0
    """Too few firings to tell."""


class AuditRecord(Record):
    """One audit of a name's champion on a model, written once."""

    name: str
    bundle: str
    """Digest of the bundle that was audited."""
    model: str
    """Digest of the new model."""
    model_ref: str
    """What the new model was asked for by."""
    same_model: bool
    """The new model is the bundle's own: the audit measured noise."""
    outcome: AuditOutcome
    fresh_start: bool
    """Too much changed for the champion to be worth starting a retrain from."""
    at: str
    """When, ISO-8601 in UTC."""
    author: str
    documents: int
    tokens: int
    latents: LatentCounts
    reasons: tuple[str, ...]
    """Why the outcome is what it is, in sentences."""
    report: str
    """Digest of the sealed audit folder."""


def parse_audit(data: bytes, where: str) -> AuditRecord:
    """Read one audit record of the store.

    Raises:
        JournalBroken: not as it was written.
        FormatUnknown: written by another version of saeops.
    """
    return parse_record(AuditRecord, data, where)
