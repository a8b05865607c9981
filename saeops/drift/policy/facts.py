"""Facts: what the registry's records say of one name, at one moment or at an earlier one."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from saeops.drift.audit.record import AuditRecord
from saeops.drift.policy.records import ModelSeen, Retraining


def moment(text: str) -> datetime.datetime:
    """A record's time."""
    return datetime.datetime.fromisoformat(text)


@dataclass(frozen=True)
class Change:
    """A version became champion."""

    digest: str
    at: datetime.datetime
    action: Literal["promote", "rollback"]
    sequence: int
    previous: str | None = None
    """Digest of the champion before."""


@dataclass(frozen=True)
class Facts:
    """All that the policy decides on. Everything is in order of time."""

    name: str
    changes: tuple[Change, ...]
    """At least one: a name without champion has no state."""
    audits: tuple[AuditRecord, ...] = ()
    models: tuple[ModelSeen, ...] = ()
    retraining: Retraining | None = None
    pinned: Mapping[str, datetime.datetime] = field(default_factory=dict)
    """Bundle digest → since when."""
    built_on: Mapping[str, str] = field(default_factory=dict)
    """Bundle digest → digest of the model it was built on, where it is known."""

    @property
    def champion(self) -> Change:
        return self.changes[-1]

    @property
    def last_audit(self) -> AuditRecord | None:
        """The last one of the champion."""
        return next((audit for audit in reversed(self.audits) if audit.bundle == self.champion.digest), None)

    @property
    def last_model(self) -> ModelSeen | None:
        return self.models[-1] if self.models else None

    @property
    def unaudited_model(self) -> ModelSeen | None:
        """The newest model, if the champion was neither built nor audited on it."""
        model, champion = self.last_model, self.champion
        if model is None or model.digest == self.built_on.get(champion.digest):
            return None
        if champion.digest not in self.built_on and moment(model.at) <= champion.at:
            return None
        audited = any((a.bundle, a.model) == (champion.digest, model.digest) for a in self.audits)
        return None if audited else model

    def as_of(self, at: datetime.datetime) -> "Facts | None":
        """What the records said then, as far as they tell; None before the first champion.

        Of retrainings the registry keeps the last one only, and of pins those in force.
        """
        changes = tuple(change for change in self.changes if change.at <= at)
        if not changes:
            return None
        return replace(
            self,
            changes=changes,
            audits=tuple(audit for audit in self.audits if moment(audit.at) <= at),
            models=tuple(model for model in self.models if moment(model.at) <= at),
            retraining=_retraining_as_of(self.retraining, at),
            pinned={digest: since for digest, since in self.pinned.items() if since <= at},
        )


def _retraining_as_of(run: Retraining | None, at: datetime.datetime) -> Retraining | None:
    if run is None or moment(run.started) > at:
        return None
    update: dict[str, object] = {}
    if run.judged is not None and moment(run.judged) > at:
        update |= {"verdict": None, "verdict_outcome": None, "judged": None}
    if run.finished is not None and moment(run.finished) > at:
        update |= {"outcome": "none", "finished": None, "candidate": None}
    return run.model_copy(update=update)
