"""The bench stage on a tiny real model: complete, repeatable, killable, and refusing what does not belong."""

import shutil
from pathlib import Path

import pytest
import yaml

from saeops.activations.reader import ActivationSet
from saeops.adapters.models import TransformersModel, load_model
from saeops.errors import FolderDamaged, ModelMismatch, PanelInvalid, StageMissing
from saeops.interventions import effects
from saeops.interventions.metrics import METRICS
from saeops.interventions.schema import EffectTable
from saeops.metrics import read_metrics
from saeops.params import ModelParams, Params
from saeops.refs import Workspace
from saeops.sealed import verify
from saeops.stages import bench, label, train
from saeops.tables import read_table
from tests.diagnosing import without_controls
from tests.tiny import RecordingWatch, save_tiny_model, tiny_params

PROMPTS = [("The", " class"), ("If a name", " is"), ("import", " sys"), ("This value", " must")]


def write_panel(path: Path) -> Path:
    items = [
        {"id": f"p{i}", "topic": "python", "prompt": prompt, "should_move": [more], "should_not_move": [","]}
        for i, (prompt, more) in enumerate(PROMPTS * 3)
    ]
    path.write_text(yaml.safe_dump({"version": 1, "items": items}))
    return path


@pytest.fixture(scope="module")
def params(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Params:
    panel = write_panel(tmp_path_factory.mktemp("panel") / "panel.yaml")
    bench_section = {"panel": str(panel), "latents": 8, "neutral_documents": 3, "strengths": [1, 3]}
    return tiny_params(corpus={"path": str(tiny_corpus)}, bench=bench_section, label={"llm_latents": 0})


@pytest.fixture(scope="module")
def labelled(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_activations: ActivationSet,
    tiny_model: TransformersModel,
    params: Params,
) -> Workspace:
    """A workspace with everything that the bench reads."""
    space = Workspace(root=tmp_path_factory.mktemp("labelled"))
    shutil.copytree(tiny_activations.sealed.path, space.activations)
    train.run(params, space, watch=RecordingWatch())
    without_controls(params, space, tiny_model)
    label.run(params, space, model=tiny_model, llm=None, watch=RecordingWatch())
    return space


@pytest.fixture(scope="module")
def benched(labelled: Workspace, tiny_model: TransformersModel, params: Params) -> Workspace:
    bench.run(params, labelled, model=tiny_model, watch=RecordingWatch())
    return labelled


@pytest.fixture
def fresh(tmp_path: Path, labelled: Workspace) -> Workspace:
    """The same inputs in a workspace of its own, nothing benched."""
    space = Workspace(root=tmp_path)
    for folder in (labelled.activations, labelled.sae, labelled.catalog, labelled.labels):
        shutil.copytree(folder, space.root / folder.relative_to(labelled.root))
    return space


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_declared_metric_is_measured(benched: Workspace, params: Params) -> None:
    metrics = read_metrics(benched.effects / "metrics.json")
    assert metrics.keys() == METRICS.keys()
    assert all(interval.n == params.bench.latents for interval in metrics.values())
    # Twelve prompts give an interval, three neutral documents are too few for one.
    assert metrics["steering_vs_random_nats"].low is not None
    assert metrics["off_target_kl_nats"].low is None
    assert "documents" in metrics["off_target_kl_nats"].note


def test_half_the_latents_are_the_best_labelled_and_half_are_drawn(benched: Workspace) -> None:
    table = read_table(benched.effects / "effects.parquet", EffectTable)
    drawn = table.groupby("latent")["drawn"].first()
    assert len(drawn) == 8
    assert 1 <= (drawn == "confidence").sum() <= 4
    summary = verify(benched.effects, kind="effects").summary
    assert summary["best_labelled"] + summary["at_random"] == 8
    assert summary["prompts"] == 12


def test_every_latent_has_its_rows_beside_a_control(benched: Workspace) -> None:
    table = read_table(benched.effects / "effects.parquet", EffectTable)
    for _, rows in table.groupby("latent"):
        found = set(zip(rows["kind"], rows["strength"], rows["metric"], strict=True))
        assert {("steer", 1.0, "target_logprob"), ("steer", 3.0, "target_logprob")} <= found
        assert {("steer", 3.0, "off_target_kl"), ("ablate", 0.0, "off_target_kl")} <= found
        assert {("steer", 0.0, "dose_response_rho"), ("ablate", 0.0, "target_logprob")} <= found


def test_finished_work_is_kept_and_another_workspace_gets_the_same_bytes(
    benched: Workspace, fresh: Workspace, tiny_model: TransformersModel, params: Params
) -> None:
    before = bytes_of(benched.effects)
    kept = bench.run(params, benched, model=tiny_model, watch=RecordingWatch())
    again = bench.run(params, fresh, model=tiny_model, watch=RecordingWatch())
    assert bytes_of(benched.effects) == bytes_of(fresh.effects) == before
    assert kept.digest == again.digest


def test_a_killed_bench_goes_on_after_the_last_latent(
    benched: Workspace,
    fresh: Workspace,
    tiny_model: TransformersModel,
    params: Params,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measure, measured = effects.Bench.measure, []

    def dies_at_the_fourth(self: effects.Bench, chosen: effects.Chosen) -> effects.LatentEffects:
        measured.append(chosen.latent)
        if len(measured) == 4:
            raise KeyboardInterrupt
        return measure(self, chosen)

    monkeypatch.setattr(effects.Bench, "measure", dies_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        bench.run(params, fresh, model=tiny_model, watch=RecordingWatch())
    assert not fresh.effects.exists()
    bench.run(params, fresh, model=tiny_model, watch=RecordingWatch())
    assert measured[3] == measured[4]
    assert len(set(measured)) == 8
    assert len(measured) == 9
    assert bytes_of(fresh.effects) == bytes_of(benched.effects)


def test_another_panel_measures_again(
    fresh: Workspace, tiny_model: TransformersModel, params: Params, tmp_path: Path
) -> None:
    section = params.bench.model_copy(update={"latents": 1, "panel": write_panel(tmp_path / "p.yaml")})
    params = params.model_copy(update={"bench": section})
    first = bench.run(params, fresh, model=tiny_model, watch=RecordingWatch())
    values = yaml.safe_load(section.panel.read_text())
    values["items"][0]["prompt"] += " and"
    section.panel.write_text(yaml.safe_dump(values))
    assert bench.run(params, fresh, model=tiny_model, watch=RecordingWatch()).digest != first.digest


def test_a_bad_panel_is_refused_before_anything_is_measured(
    fresh: Workspace, tiny_model: TransformersModel, params: Params, tmp_path: Path
) -> None:
    panel = tmp_path / "bad.yaml"
    panel.write_text("version: 1\nitems:\n  - id: a\n")
    bad = params.model_copy(update={"bench": params.bench.model_copy(update={"panel": panel})})
    with pytest.raises(PanelInvalid, match="a: prompt is missing"):
        bench.run(bad, fresh, model=tiny_model, watch=RecordingWatch())
    assert not (fresh.root / "artifacts" / ".work").exists()


def test_another_model_is_refused(fresh: Workspace, params: Params, tmp_path: Path) -> None:
    other = load_model(
        ModelParams(ref=str(save_tiny_model(tmp_path / "other", seed=1)), device="cpu"), Path("unused")
    )
    with pytest.raises(ModelMismatch, match="harvested from"):
        bench.run(params, fresh, model=other, watch=RecordingWatch())


@pytest.mark.parametrize("folder", ["sae", "catalog", "labels"])
def test_a_missing_input_says_which_command_makes_it(
    fresh: Workspace, tiny_model: TransformersModel, params: Params, folder: str
) -> None:
    shutil.rmtree(getattr(fresh, folder))
    with pytest.raises(StageMissing, match=r"run `saeops (train|diagnose|label)`"):
        bench.run(params, fresh, model=tiny_model, watch=RecordingWatch())


def test_a_damaged_result_is_not_silently_replaced(
    fresh: Workspace, benched: Workspace, tiny_model: TransformersModel, params: Params
) -> None:
    shutil.copytree(benched.effects, fresh.effects)
    path = fresh.effects / "metrics.json"
    path.write_bytes(path.read_bytes().replace(b"nats", b"bits"))
    with pytest.raises(FolderDamaged, match="metrics"):
        bench.run(params, fresh, model=tiny_model, watch=RecordingWatch())
