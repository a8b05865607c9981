"""The params section `retrain`: when to audit, retrain, roll back and alert."""

from typing import Annotated, Literal

from pydantic import Field

from saeops.config import Frozen


class FolderSource(Frozen):
    """A transformers folder into which new versions are copied."""

    kind: Literal["folder"] = "folder"
    path: str
    """The folder; relative to the checkout or absolute."""


class MlflowSource(Frozen):
    """A registered model of MLflow, at an alias that its owners move."""

    kind: Literal["mlflow"] = "mlflow"
    model: str
    """The registered model's name."""
    alias: str
    """The alias, e.g. `production`."""


class HubSource(Frozen):
    """A model repository of the hub, at a branch or tag that its owners move."""

    kind: Literal["hub"] = "hub"
    id: str
    """owner/name."""
    revision: str = "main"
    """Branch or tag."""


Source = Annotated[FolderSource | MlflowSource | HubSource, Field(discriminator="kind")]
Positive = Annotated[float, Field(gt=0)]


class RetrainConfig(Frozen):
    """What is done about a model that changes."""

    sources: tuple[Source, ...] = ()
    """Where new versions of the model appear; polled by `saeops watch`."""
    audit_every_days: Positive | None = 30.0
    """The champion is audited at least this often; null: only when a new model version is seen."""
    on_outcome: Literal["drift", "warn"] = "drift"
    """The mildest outcome of an audit that calls for a retrain."""
    lease_minutes: Positive = 15.0
    """A retrain whose heartbeat is older has lost its lease: whoever comes next goes on with it."""
    stuck_after_hours: Positive = 6.0
    """A retrain that stays in one step for longer is reported, though its heart beats."""
    overdue_after_days: Positive = 3.0
    """An audit that has been due for longer is reported."""
    rollback_on_drift: bool = False
    """Roll a promotion back, and pin it, when an audit of it says drift on a model that was known when it was
    promoted."""
    rollback_within_days: Positive = 7.0
    """Only audits made this soon after the promotion roll it back."""
