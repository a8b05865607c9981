"""The retrain flow on services that do what a script says, over a real registry with a champion."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.alive import held
from flows.retrain import WAITING, holder_of, retrain, selection_for
from flows.serve import service_data
from saeops.digests import digest_bytes
from saeops.drift.audit.record import AuditOutcome, AuditRecord
from saeops.drift.policy.lease import Taken, Wanted
from saeops.drift.policy.records import Retraining
from saeops.errors import EndpointUnavailable, NonFinite
from saeops.params import Params, Selection, load_params, read_selection
from saeops.promotion import keys
from saeops.refs import Ref
from saeops.sealed import open_sealed
from saeops.stages import promote
from saeops.stages.drift_records import read_retraining
from saeops.stages.walk import Registry
from tasks.checkout import Checkout, lending
from tests.bundles import NAME, tiny_bundle, verdict_on
from tests.changing import audit_of
from tests.flows.fakes import ScriptedServices

pytestmark = pytest.mark.usefixtures("prefect_api")

MODEL, OTHER = "n" * 64, "o" * 64
MADE = ["harvest", "train", "controls", "diagnose", "label", "bench", "bundle"]


@dataclass(frozen=True)
class Audited:
    record: AuditRecord


class AuditingServices(ScriptedServices):
    """As scripted, and every audit finds what `outcome` says."""

    outcome: AuditOutcome = "drift"
    carried: str | None = None
    sets_given: Sequence[str] = ()

    def audit(self, params: Params, name: str, model: str) -> Any:
        self.called.append(f"audit {model}")
        record = audit_of(self.champion, MODEL, self.outcome, self.author().now, model_ref=model, name=name)
        written = record.to_bytes()
        self.store.put(keys.audit_key(name, record.at, digest_bytes(written)), written, if_absent=True)
        return Audited(record)

    def label(self, params: Params, *, carry_from: str | None = None, activations: Any = ()) -> Ref:
        self.carried = carry_from
        self.sets_given = [open_sealed(folder, kind="activations").digest for folder in activations]
        return super().label(params)

    def crown(self, root: Path) -> None:
        """A champion in the registry."""
        made = tiny_bundle(root / "elsewhere")
        registry = Registry(store=self.store, projection=self.projection)
        promote.run(made.path, verdict_on(made, None), registry=registry, author=self.author())
        self.champion = made.digest

    @property
    def retraining(self) -> Retraining | None:
        return read_retraining(self.store, NAME)[0]

    def take(self, holder: str, *, operation: str = "another") -> None:
        wanted = Wanted(NAME, operation, OTHER, "models/other", holder)
        assert isinstance(self.take_retraining(load_params(self.settings.root), wanted), Taken)


@pytest.fixture
def services(root: Path) -> Iterator[AuditingServices]:
    (root / "profile.yaml").write_text(f"profile: default\nset: [name={NAME}]\n")
    services = AuditingServices(root)
    services.crown(root)
    with lending(services):
        yield services


def test_a_model_on_which_the_dictionary_drifts_is_retrained_for(root: Path, services: AuditingServices) -> None:
    state = retrain(root, model="models/v2", return_state=True)
    assert state.is_completed(), state
    assert services.called[: 1 + len(MADE)] == ["audit models/v2", *MADE], state
    assert services.called[-1] == "promote"
    assert services.carried == services.champion
    chosen = load_params(root)
    assert (chosen.model.ref, chosen.model.sha256) == ("models/v2", None)
    assert chosen.train.start_from == services.champion
    run = services.retraining
    assert run is not None
    made = open_sealed(services.space.bundle, kind="bundle").digest
    assert (run.outcome, run.step, run.candidate, run.verdict_outcome) == ("done", "judge", made, "pass")


def test_the_champions_activations_are_there_until_its_labels_are_carried_over(
    root: Path, services: AuditingServices
) -> None:
    own = services.space.activations
    shutil.copytree(root / "elsewhere" / "artifacts" / "activations", own)
    before = open_sealed(own, kind="activations").digest
    retrain(root, model="models/v2", return_state=True)
    assert open_sealed(own, kind="activations").digest != before
    assert services.sets_given == [before]
    assert not list((root / "artifacts").glob("*activations-*"))


def test_a_model_on_which_it_does_not_drift_is_only_audited(root: Path, services: AuditingServices) -> None:
    services.outcome = "ok"
    state = retrain(root, model="models/v2", return_state=True)
    assert state.name == "Kept"
    assert services.called == ["audit models/v2"]
    assert read_selection(root).set == (f"name={NAME}",)


def test_a_person_can_retrain_whatever_the_audit_says(root: Path, services: AuditingServices) -> None:
    services.outcome = "ok"
    retrain(root, model="models/v2", force=True, return_state=True)
    assert services.called[1 : 1 + len(MADE)] == MADE


def test_without_anything_to_do_nothing_is_done(root: Path, services: AuditingServices) -> None:
    assert retrain(root, return_state=True).name == "Kept"
    assert services.called == []


def test_of_two_retrains_the_second_says_whom_it_waits_for(root: Path, services: AuditingServices) -> None:
    services.take("grace in elsewhere:/srv")
    state = retrain(root, model="models/v2", return_state=True)
    assert state.name == WAITING
    assert "grace in elsewhere:/srv" in str(state.message)
    assert not set(MADE) & set(services.called)


def test_in_one_checkout_the_second_does_not_even_ask(root: Path, services: AuditingServices) -> None:
    with held(service_data(services.settings) / "retraining"):
        state = retrain(root, model="models/v2", return_state=True)
    assert state.name == WAITING
    assert services.called == []


def test_one_that_was_killed_here_goes_on_without_another_audit(root: Path, services: AuditingServices) -> None:
    services.take(holder_of(Checkout(root, load_params(root))), operation="mine")
    state = retrain(root, return_state=True)
    assert state.is_completed()
    assert services.called[: len(MADE)] == MADE
    run = services.retraining
    assert run is not None
    assert (run.operation, run.attempt, run.outcome) == ("mine", 2, "done")


@pytest.mark.parametrize(
    ("error", "outcome"), [(NonFinite("NaN in the loss"), "failed"), (EndpointUnavailable("slow"), "none")]
)
def test_what_cannot_be_made_is_recorded_and_what_may_be_is_left(
    root: Path, services: AuditingServices, error: Exception, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.build.train.retry_delay_seconds", 0)
    services.failures = {"train": [error] * 3}
    state = retrain(root, model="models/v2", return_state=True)
    assert state.is_failed()
    run = services.retraining
    assert run is not None
    assert (run.outcome, run.step) == (outcome, "train")
    assert run.note == ("NaN in the loss" if outcome == "failed" else "")


def test_choices_of_an_earlier_retrain_are_replaced_and_others_stay() -> None:
    before = Selection(profile="small", set=("train.k=8", "model.ref=old", "model.sha256=null"))
    once = selection_for(before, "a/b@c: d", start_from="f" * 64)
    again = selection_for(once, "a/b@c: d", start_from="f" * 64)
    assert again == once
    assert once.set[0] == "train.k=8"
    assert "model.ref=old" not in once.set
