"""A champion measured on a candidate's model, and what the judge makes of it."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from saeops.activations.reader import ActivationSet
from saeops.adapters.models import TransformersModel
from saeops.adapters.projection import MemoryProjection
from saeops.adapters.stores import MemoryStore
from saeops.diagnostics import schema
from saeops.dictionary.bundle import Bundle
from saeops.errors import DocumentsShared, NotComparable
from saeops.metrics import read_metrics
from saeops.params import Params
from saeops.promotion.policy import PromotePolicy
from saeops.promotion.verdict import GateResult
from saeops.refs import Workspace
from saeops.sae.canonical import Sae
from saeops.sealed import open_sealed, seal
from saeops.stages import beside, promote, train
from saeops.stages.walk import Registry
from saeops.tables import read_table, write_table
from saeops.training.documents import DOCUMENTS, TrainedDocumentTable
from tests.bundles import MODEL, author, tiny_bundle, verdict_on
from tests.diagnosing import without_controls
from tests.tiny import RecordingWatch, tiny_params

NEW_MODEL = "n" * 64
NOT_WORSE = PromotePolicy.model_validate(
    {"gates": [{"metric": "explained_variance", "not_worse_than_champion_by": 0.02}], "review": "optional"}
)
CARRIED = PromotePolicy.model_validate(
    {"gates": [{"metric": "carry_over_coverage", "at_least": 0.5}], "review": "optional"}
)


# ── the measurement ─────────────────────────────────────────────────────────


@pytest.fixture
def params() -> Params:
    return tiny_params(train={"tokens": 256 * 24})


@pytest.fixture
def space(tmp_path: Path, tiny_activations: ActivationSet, params: Params) -> Workspace:
    """A workspace with activations and an SAE."""
    space = Workspace(root=tmp_path / "checkout")
    shutil.copytree(tiny_activations.sealed.path, space.activations)
    train.run(params, space, watch=RecordingWatch())
    return space


@pytest.fixture
def champion(space: Workspace, tmp_path: Path) -> Any:
    """As much of a bundle as is read: this one holds the workspace's own SAE."""
    shutil.copytree(space.sae, tmp_path / "champion" / "sae")
    return SimpleNamespace(path=tmp_path / "champion", digest="c" * 64)


def test_an_sae_beside_itself_has_the_very_figures_of_its_diagnostics(
    space: Workspace, params: Params, champion: Any, tiny_model: TransformersModel
):
    without_controls(params, space, tiny_model)
    beside.run(champion, params, space, model=tiny_model, watch=RecordingWatch())
    for table, columns in ((schema.DOCUMENTS, schema.EvalDocumentTable), (schema.SLICES, schema.SliceTable)):
        theirs, own = (read_table(place / table, columns) for place in (space.beside, space.diagnostics))
        pd.testing.assert_frame_equal(theirs, own)
    own = read_metrics(space.diagnostics / schema.METRICS_FILE)
    theirs = read_metrics(space.beside / schema.METRICS_FILE)
    assert {"explained_variance", "l0", "delta_ce_nats", "dead_fraction"} <= theirs.keys()
    assert all(own[name] == interval for name, interval in theirs.items())


def test_what_was_measured_is_kept(space: Workspace, params: Params, champion: Any, tiny_model: TransformersModel):
    first = beside.run(champion, params, space, model=tiny_model, watch=RecordingWatch())
    watch = RecordingWatch()
    assert beside.run(champion, params, space, model=tiny_model, watch=watch) == first
    assert watch.advanced == 0


def test_a_champion_of_another_width_or_site_cannot_be_measured(
    space: Workspace, params: Params, champion: Any, tiny_model: TransformersModel
):
    sae = Sae.load(champion.path / "sae")
    Sae.of(sae.tensors(), sae.meta.model_copy(update={"site": "blocks.0.resid_post"})).save(champion.path / "sae")
    with pytest.raises(NotComparable, match=r"reads blocks\.0\.resid_post.*not harvested(.|\n)*a person decides"):
        beside.run(champion, params, space, model=tiny_model, watch=RecordingWatch())
    assert not space.beside.exists()


def test_a_champion_trained_on_what_is_held_out_here_is_refused(
    space: Workspace, params: Params, champion: Any, tiny_model: TransformersModel
):
    documents = ActivationSet.open(space.activations).documents
    held_out = documents.loc[documents["split"] == "eval", "sha256"].str[:32]
    path = champion.path / "sae" / DOCUMENTS
    write_table(pd.DataFrame({"sha256": sorted(held_out)}), path, TrainedDocumentTable)
    with pytest.raises(DocumentsShared):
        beside.run(champion, params, space, model=tiny_model, watch=RecordingWatch())


# ── the judge ───────────────────────────────────────────────────────────────


@pytest.fixture
def registry(tmp_path: Path) -> tuple[Registry, Bundle]:
    """A name whose champion is of the old model."""
    old = tiny_bundle(tmp_path / "old", 0, model=MODEL)
    registry = Registry(MemoryStore(), MemoryProjection(), patience_s=0)
    promote.run(old.path, verdict_on(old, None), registry=registry, author=author("op"))
    return registry, old


@pytest.fixture
def candidate(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path / "new", 1, model=NEW_MODEL)


def gate(candidate: Bundle, registry: Registry, tmp_path: Path, policy: PromotePolicy = NOT_WORSE) -> GateResult:
    verdict = promote.judge_bundle(
        candidate.path, store=registry.store, cache=tmp_path / "cache", policy=policy, beside=tmp_path / "beside"
    )
    return verdict.gates[0]


def eval_documents() -> pd.DataFrame:
    """Ten documents that are all alike."""
    columns = schema.EvalDocumentTable.to_schema().columns
    frame = pd.DataFrame({name: [1.0] * 10 for name in columns if name not in ("document", "sha256")})
    frame.insert(0, "document", pd.Series(range(10), dtype="int32"))
    frame.insert(1, "sha256", [f"{number:064x}" for number in range(10)])
    return frame


def measured_beside(folder: Path, champion: Bundle, candidate: Bundle, *, activations: str | None = None) -> None:
    """The champion's own figures in the place of those on the new model."""
    folder.mkdir()
    shutil.copy(champion.path / "diagnostics" / schema.METRICS_FILE, folder / schema.METRICS_FILE)
    write_table(eval_documents(), folder / schema.DOCUMENTS, schema.EvalDocumentTable)
    upstream = activations or candidate.provenance.upstream["activations"]
    inputs = {"champion": champion.digest, "activations": upstream}
    seal(folder, kind=beside.KIND, version=beside.VERSION, inputs=inputs, summary={})


def test_figures_of_two_models_are_not_compared_and_a_way_out_is_told(registry, candidate: Bundle, tmp_path: Path):
    found = gate(candidate, registry[0], tmp_path)
    assert found.outcome == "inconclusive"
    assert "`saeops beside`" in found.reason


def test_on_the_same_model_they_are(registry, candidate: Bundle, tmp_path: Path):
    measured_beside(tmp_path / "beside", registry[1], candidate)
    found = gate(candidate, registry[0], tmp_path)
    assert found.difference is not None
    assert (
        found.beside == read_metrics(registry[1].path / "diagnostics" / schema.METRICS_FILE)["explained_variance"]
    )


@pytest.mark.parametrize("other", ["champion", "activations"])
def test_a_measurement_of_another_champion_or_other_activations_is_not_taken(
    registry, candidate: Bundle, tmp_path: Path, other: str
):
    measured_beside(
        tmp_path / "beside",
        candidate if other == "champion" else registry[1],
        candidate,
        activations="e" * 64 if other == "activations" else None,
    )
    assert gate(candidate, registry[0], tmp_path).outcome == "inconclusive"


def test_a_damaged_measurement_is_not_taken(registry, candidate: Bundle, tmp_path: Path):
    measured_beside(tmp_path / "beside", registry[1], candidate)
    (tmp_path / "beside" / schema.METRICS_FILE).unlink()
    assert gate(candidate, registry[0], tmp_path).outcome == "inconclusive"
    assert open_sealed(candidate.path, kind="bundle").digest == candidate.digest


def test_a_gate_on_carried_labels_does_not_apply_where_none_could_be_carried(
    registry, candidate: Bundle, tmp_path: Path
):
    found = gate(candidate, registry[0], tmp_path, CARRIED)
    assert (found.outcome, found.reason) == ("not applicable", "no dictionary's labels were carried over to it")
