"""Every error a person can meet, and the exit code it ends a verb with.

SaeopsError                      1  something saeops refuses, with what to do next
├── UsageError                   2  what was asked for cannot be meant
│   ├── ParamsInvalid               params.yaml, a profile or --set has faults (all are listed)
│   ├── ModelUnavailable            a model reference that cannot be resolved or loaded
│   ├── ModelMismatch               data made from one model, used with another
│   ├── DocumentsShared             held-out documents that an SAE was trained on
│   ├── SiteUnknown                 a site the model does not have
│   ├── CheckpointMismatch          a checkpoint of another variant, other params or other data
│   ├── CorpusMissing               a corpus that is not there, or holds no text
│   ├── CorpusTooSmall              too few documents for the splits
│   ├── StageMissing                a stage whose input has not been made yet
│   ├── NonFinite                   NaN or infinity where a number belongs
│   ├── PanelInvalid                an intervention panel that cannot be run
│   ├── StoreUnfit                  an object store that does not hold to its conditions
│   ├── NameUnknown                 a dictionary name without a champion
│   ├── VersionUnknown              a digest or sequence number nobody promoted
│   ├── RecipeMissing               a version of which nobody kept what it takes to build it again
│   ├── CommitMissing               a git commit that this repository does not have
│   ├── FolderInUse                 a folder that holds something else already
│   ├── ReviewInvalid               a decision about something that is not in the queue
│   ├── TextInvalid                 a text without a token, or that is not UTF-8
│   ├── NotComparable               two bundles whose figures speak of different things
│   ├── ForeignFormat               another library's SAE that cannot be read, or not be held exactly
│   └── ToolMissing                 an optional package or program that is needed here
├── GateRefused                  3  the judge did not pass the candidate
│   └── VersionPinned               a version that somebody pinned, or that a rollback left behind
├── LostRace                     4  somebody else moved the champion first
├── IntegrityError               5  bytes are not what they were
│   ├── FolderDamaged               a sealed folder with a changed, missing or extra file
│   ├── ObjectDamaged               an object of the store whose bytes are not those that were put
│   ├── DataMissing                 data that DVC's remote does not have
│   ├── DataDamaged                 data in DVC's remote that are not what dvc.lock names
│   ├── SitesUnpaired               two sites of a set that do not hold the same tokens
│   ├── FormatUnknown               a format version that this saeops does not read
│   ├── CheckpointDamaged           no checkpoint can be trusted
│   ├── JournalBroken               the promotion journal has a gap or an edited entry
│   └── LedgerTampered              the review ledger's hash chain does not hold
└── Unavailable                  6  something outside does not answer
    ├── StoreUnreachable            the object store does not answer
    ├── StoreDenied                 the object store answers, and says no
    ├── StoreMissing                the object store answers, and has no such bucket
    ├── ClockSkewed                 this machine's clock and the object store's are too far apart
    ├── MemoryShort                 more memory is needed than the machine has
    ├── DiskFull                    no room left; what is finished is kept
    ├── TrackerUnreachable          MLflow does not answer
    ├── SchedulerUnreachable        Prefect's server does not start or answer
    ├── DataVersionsFailed          DVC refuses, or its remote does not answer
    ├── EndpointUnavailable         an LLM that is down, slow, refuses or answers nonsense
    └── AlertUndelivered            a webhook that does not take an alert
"""

from collections.abc import Sequence


class SaeopsError(Exception):
    """A refusal that names the culprit and the fix.

    Args:
        message: what is wrong, naming the culprit.
        hint: what to do next; a command where there is one.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  → {self.hint}" if self.hint else self.message


class UsageError(SaeopsError):
    """What was asked for cannot be meant."""

    exit_code = 2


class ParamsInvalid(UsageError):
    """Faults in params, all of them at once.

    Args:
        faults: pairs of a dotted path (`train.k`) and what is wrong there.
    """

    def __init__(self, faults: Sequence[tuple[str, str]], *, source: str = "params.yaml") -> None:
        self.faults = tuple(faults)
        lines = "\n".join(f"  {path}: {what}" for path, what in self.faults)
        count = f"{len(self.faults)} fault{'s' if len(self.faults) != 1 else ''}"
        super().__init__(
            f"{count} in {source}:\n{lines}",
            hint="mend them there, or with --set PATH=VALUE; `saeops params` prints what is in force",
        )


class ModelUnavailable(UsageError):
    """A model reference that cannot be resolved or loaded."""


class ModelMismatch(UsageError):
    """Data made from one model, used with another."""


class DocumentsShared(UsageError):
    """Held-out documents that an SAE was trained on."""


class SiteUnknown(UsageError):
    """A site the model does not have."""


class CheckpointMismatch(UsageError):
    """A checkpoint of another variant, other params or other data."""


class CorpusMissing(UsageError):
    """A corpus that is not there, or holds no text."""


class CorpusTooSmall(UsageError):
    """Too few documents for the splits."""


class StageMissing(UsageError):
    """A stage whose input has not been made yet."""


class NonFinite(UsageError):
    """NaN or infinity where a number belongs."""


class PanelInvalid(UsageError):
    """An intervention panel that cannot be run."""


class StoreUnfit(UsageError):
    """An object store that does not hold to its conditions: promotions on it could overwrite one another."""


class NameUnknown(UsageError):
    """A dictionary name without a champion."""


class VersionUnknown(UsageError):
    """A digest or sequence number nobody promoted."""


class RecipeMissing(UsageError):
    """A version of which nobody kept what it takes to build it again."""


class CommitMissing(UsageError):
    """A git commit that this repository does not have."""


class FolderInUse(UsageError):
    """A folder that holds something else already."""


class ReviewInvalid(UsageError):
    """A decision about something that is not in the queue."""


class TextInvalid(UsageError):
    """A text without a token, or that is not UTF-8."""


class NotComparable(UsageError):
    """Two bundles whose figures speak of different things."""


class ForeignFormat(UsageError):
    """Another library's SAE that cannot be read, or that one side cannot hold exactly.

    Args:
        faults: pairs of a place (`cfg.json: k`) and what is wrong there.
        source: which folder, read or written as what.
    """

    def __init__(self, faults: Sequence[tuple[str, str]], *, source: str) -> None:
        self.faults = tuple(faults)
        lines = "\n".join(f"  {where}: {what}" for where, what in self.faults)
        count = f"{len(self.faults)} fault{'s' if len(self.faults) != 1 else ''}"
        super().__init__(
            f"{count} in {source}:\n{lines}",
            hint="docs/formats/foreign.md tells what each format holds, and what is refused",
        )


class ToolMissing(UsageError):
    """An optional package or program that is needed here."""


class GateRefused(SaeopsError):
    """The judge did not pass the candidate."""

    exit_code = 3


class VersionPinned(GateRefused):
    """A version that somebody pinned, or that a rollback left behind."""


class LostRace(SaeopsError):
    """Somebody else moved the champion first."""

    exit_code = 4


class IntegrityError(SaeopsError):
    """Bytes are not what they were."""

    exit_code = 5


class FolderDamaged(IntegrityError):
    """A sealed folder with a changed, missing or extra file."""


class ObjectDamaged(IntegrityError):
    """An object of the store whose bytes are not those that were put."""


class DataMissing(IntegrityError):
    """Data that DVC's remote does not have."""


class DataDamaged(IntegrityError):
    """Data in DVC's remote that are not what dvc.lock names."""


class SitesUnpaired(IntegrityError):
    """Two sites of a set that do not hold the same tokens."""


class FormatUnknown(IntegrityError):
    """A format version that this saeops does not read."""


class CheckpointDamaged(IntegrityError):
    """No checkpoint can be trusted."""


class JournalBroken(IntegrityError):
    """The promotion journal has a gap or an edited entry."""


class LedgerTampered(IntegrityError):
    """The review ledger's hash chain does not hold."""


class Unavailable(SaeopsError):
    """Something outside does not answer."""

    exit_code = 6


class StoreUnreachable(Unavailable):
    """The object store does not answer."""


class StoreDenied(Unavailable):
    """The object store answers, and says no."""


class StoreMissing(Unavailable):
    """The object store answers, and has no such bucket."""


class ClockSkewed(Unavailable):
    """This machine's clock and the object store's are too far apart."""


class MemoryShort(Unavailable):
    """More memory is needed than the machine has."""


class DiskFull(Unavailable):
    """No room left; what is finished is kept."""


class EndpointUnavailable(Unavailable):
    """An LLM that is down, slow, refuses or answers nonsense."""


class AlertUndelivered(Unavailable):
    """A webhook that does not take an alert."""


class TrackerUnreachable(Unavailable):
    """MLflow does not answer."""


class SchedulerUnreachable(Unavailable):
    """Prefect's server does not start or answer."""


class DataVersionsFailed(Unavailable):
    """DVC refuses, or its remote does not answer."""


class StaleAnswer(UserWarning):
    """The store is away, and what it last said is served; the message says how old that is."""


class ModelUnchecked(UserWarning):
    """Nothing tells whether a model in memory is the one that a dictionary was made from."""
