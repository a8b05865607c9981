"""Services that do what a script says, for tests of order, failure and retries."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from saeops.adapters.dvc import NoDataVersions
from saeops.adapters.mlflow import NullTracker
from saeops.adapters.projection import MemoryProjection
from saeops.metrics import write_metrics
from saeops.params import Params
from saeops.promotion.plan import Plan
from saeops.promotion.policy import PromotePolicy
from saeops.promotion.verdict import GateOutcome, GateResult, Verdict, overall
from saeops.refs import Ref, Workspace
from saeops.sealed import seal
from saeops.services import Services
from saeops.settings import Settings
from saeops.stages.diagnose import Diagnosed
from saeops.stages.walk import Moved
from saeops.stats import Interval
from tasks.checkout import lending


class ScriptedServices(Services):
    """Each stage seals a folder of its name; `failures` says what it raises first, call by call.

    Args:
        gates: metric → outcome, the verdict of every judgement.
    """

    def __init__(
        self,
        root: Path,
        *,
        failures: dict[str, list[Exception]] | None = None,
        gates: dict[str, GateOutcome] | None = None,
    ) -> None:
        super().__init__(Settings.from_environment(root, {}))
        self.space = Workspace(root=root)
        self.failures = failures or {}
        self.gates = gates or {"explained_variance": "pass"}
        self.called: list[str] = []
        # Instance attributes come before the base's cached properties.
        self.__dict__.update(tracker=NullTracker(), projection=MemoryProjection(), data_versions=NoDataVersions())

    def _make(self, stage: str, folder: Path) -> Ref:
        self.called.append(stage)
        if self.failures.get(stage):
            raise self.failures[stage].pop(0)
        return sealed_folder(folder)

    def harvest(self, params: Params) -> Ref:
        return self._make("harvest", self.space.activations)

    def train(self, params: Params) -> Ref:
        return self._make("train", self.space.sae)

    def controls(self, params: Params) -> Ref:
        return self._make("controls", self.space.controls)

    def diagnose(self, params: Params) -> Diagnosed:
        return Diagnosed(self._make("diagnose", self.space.diagnostics), sealed_folder(self.space.catalog))

    def label(self, params: Params, *, carry_from: str | None = None, activations: Sequence[Path] = ()) -> Ref:
        return self._make("label", self.space.labels)

    def bench(self, params: Params) -> Ref:
        return self._make("bench", self.space.effects)

    def bundle(self, params: Params) -> Ref:
        return self._make("bundle", self.space.bundle)

    def candidate(self) -> Ref:
        return self._make("candidate", self.space.bundle)

    def beside(self, params: Params) -> None:
        """There is no champion of another model."""

    def judge(self, params: Params) -> Verdict:
        self.called.append("judge")
        return verdict_of(self.gates)

    def keep_recipe(self) -> bool:
        self.called.append("keep recipe")
        return True

    def report(self, params: Params) -> Path:
        self.called.append("report")
        return self.space.report / "index.html"

    def summary(self, params: Params) -> Any:
        return "the summary"

    def promote(self, params: Params, *, force: bool = False, reason: str = "", dry_run: bool = False) -> Moved:
        self.called.append("promote")
        plan = Plan(params.name, "promote", None, "b" * 64, changes=(), unchanged="scripted")
        return Moved(plan, None)


def sealed_folder(folder: Path, content: str = "x") -> Ref:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "content").write_text(content)
    write_metrics(folder / "metrics.json", {"explained_variance": Interval(0.9, 0.8, 1.0, 10, "documents")})
    return Ref.of(seal(folder, kind=folder.name, version=1, inputs={}, summary={}))


def verdict_of(gates: dict[str, GateOutcome]) -> Verdict:
    results = tuple(
        GateResult(metric, metric, None, None, outcome, "scripted") for metric, outcome in gates.items()
    )
    return Verdict(
        outcome=overall(results),
        bundle="b" * 64,
        champion=None,
        gates=results,
        evidence="e" * 64,
        policy=PromotePolicy(),
    )


@contextlib.contextmanager
def scripted(root: Path, **script: Any) -> Iterator[ScriptedServices]:
    """Flows in this block run on scripted services."""
    services = ScriptedServices(root, **script)
    with lending(services):
        yield services
