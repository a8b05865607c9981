"""What the registry keeps of watching and retraining. Format: docs/formats/drift.md."""

from typing import Literal

from pydantic import Field

from saeops.promotion.journal import Record

RetrainOutcome = Literal["none", "done", "failed"]
VerdictOutcome = Literal["pass", "fail", "inconclusive"]
IncidentKind = Literal["drift", "failed gate", "overdue audit", "stuck run", "missed heartbeat"]


class ModelSeen(Record):
    """names/<name>/models/<digest>.json: a model version that was seen; written once, after it was reported."""

    name: str
    ref: str
    """What loads it: a model reference as `model.ref` takes it."""
    digest: str
    """Of the model: weights, tokenizer and config."""
    source: str
    """Where it appeared, e.g. `hub:owner/name@main`."""
    at: str
    """When it was first seen, ISO-8601 in UTC."""


class Retraining(Record):
    """names/<name>/retraining.json: who retrains, or what became of the last time; moved by compare-and-swap."""

    name: str
    operation: str
    """Names the retrain; a run that was killed goes on under the same one."""
    model: str
    """Digest of the model it is for."""
    model_ref: str
    holder: str
    """Who works on it, e.g. a flow run's id."""
    attempt: int
    """1, 2, …: counts whoever took it up; an earlier attempt that still runs has lost it."""
    started: str
    heartbeat: str
    """Last sign of life."""
    step: str = ""
    """What it is at."""
    step_since: str
    outcome: RetrainOutcome = "none"
    """`none`: it runs."""
    finished: str | None = None
    note: str = ""
    """Why it failed."""
    candidate: str | None = None
    """Digest of the bundle it made."""
    verdict: str | None = None
    """Digest of the judge's last verdict on the candidate."""
    verdict_outcome: VerdictOutcome | None = None
    judged: str | None = None


class Incident(Record):
    """names/<name>/incidents/<id>.json: something people should know; moved by compare-and-swap."""

    name: str
    id: str
    kind: IncidentKind
    subject: str
    """What it is about; the same kind and subject are the same incident."""
    message: str
    hint: str
    opened: str
    episode: int = 1
    """How often it opened; each opening is alerted of once."""
    resolved: str | None = None
    sent: dict[str, str] = Field(default_factory=dict)
    """Channel → when it took the alert of this episode."""
    claimed_by: str | None = None
    """Who is sending it."""
    claimed_until: str | None = None

    @property
    def open(self) -> bool:
        return self.resolved is None

    @property
    def event(self) -> str:
        """The same for every try to send one episode: receivers know a repeat by it."""
        return f"{self.id}-{self.episode}"
