"""What a tracker does for a stage, on MLflow over SQLite; and that the fake keeps its shape."""

import inspect
import os
import signal
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure

from saeops.adapters.mlflow import MlflowTracker, NullTracker, flatten
from saeops.adapters.s3 import open_s3
from saeops.errors import NonFinite
from tests.mlflow_server import MlflowServer
from tests.seaweed import BUCKET, Seaweed

matplotlib.use("Agg")

SECONDS_FOR_A_CHILD = 120


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('tracking') / 'mlflow.db'}"


@pytest.fixture
def tracker(address: str, tmp_path: Path, request: pytest.FixtureRequest) -> MlflowTracker:
    return MlflowTracker(address, request.node.name, artifacts=tmp_path / "artifacts")


def runs(tracker: MlflowTracker) -> dict[str, object]:
    connection = tracker._connection
    found = connection.client.search_runs([connection.experiment_id])
    return {run.info.run_name: run for run in found}


def test_a_stage_is_a_child_of_its_build(tracker: MlflowTracker) -> None:
    with tracker.run("build") as build, tracker.run("train", parent=build.run_id):
        pass
    child = runs(tracker)["train"]
    assert child.data.tags["mlflow.parentRunId"] == build.run_id
    assert child.info.status == "FINISHED"


def test_params_are_flat_and_every_metric_point_arrives(tracker: MlflowTracker) -> None:
    params = {"train": {"k": 32, "many": {f"p{i}": i for i in range(150)}}}
    with tracker.run("train", params=params) as run:
        for step in range(450):
            run.metrics({"loss": 1 / (step + 1)}, step=step)
    found = runs(tracker)["train"]
    assert found.data.params["train.k"] == "32"
    assert len(found.data.params) == 151
    history = tracker._connection.client.get_metric_history(run.run_id, "loss")
    assert [point.step for point in history] == list(range(450))


def test_figures_and_files_are_kept_in_the_artifact_folder(tracker: MlflowTracker, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("{}")
    with tracker.run("diagnose") as run:
        run.figure("densities", Figure())
        run.file(tmp_path / "metrics.json")
    kept = {path.name for path in (tmp_path / "artifacts").rglob("*") if path.is_file()}
    assert kept == {"densities.png", "metrics.json"}


@pytest.mark.slow
def test_a_runs_files_go_through_the_server_to_s3(
    mlflow_server: MlflowServer, s3_server: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metrics.json").write_text('{"loss": 1}')
    tracker = MlflowTracker(mlflow_server.address, "on a server", artifacts=tmp_path / "unused")
    with (
        tracker.run("build") as build,
        tracker.run("train", parent=build.run_id, params={"train": {"k": 32}}) as run,
    ):
        run.metrics({"loss": 0.5}, step=1)
        run.figure("densities", Figure())
        run.file(tmp_path / "metrics.json")
    found = runs(tracker)["train"]
    assert found.info.status == "FINISHED"
    assert found.data.params["train.k"] == "32"
    assert found.data.metrics == {"loss": 0.5}
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.json"}, "nothing is kept beside the client"
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    store = open_s3(f"s3://{BUCKET}/mlflow")
    kept = {key.rpartition("/artifacts/")[2]: key for key in store.list("") if run.run_id in key}
    assert set(kept) == {"figures/densities.png", "metrics.json"}
    assert store.get(kept["metrics.json"]).data == b'{"loss": 1}'


def test_data_sets_are_logged_with_their_digests(tracker: MlflowTracker) -> None:
    with tracker.run("train", inputs={"activations": "ab" * 32}):
        pass
    (used,) = runs(tracker)["train"].inputs.dataset_inputs
    assert used.dataset.name == "activations"
    assert ("ab" * 32).startswith(used.dataset.digest)
    assert "ab" * 32 in used.dataset.source


def test_an_error_marks_the_run_failed_and_passes_through(tracker: MlflowTracker) -> None:
    def train() -> None:
        with tracker.run("train") as run:
            run.metrics({"loss": 3.0}, step=7)
            raise NonFinite("NaN in the loss")

    with pytest.raises(NonFinite):
        train()
    found = runs(tracker)["train"]
    assert found.info.status == "FAILED"
    assert found.data.metrics["loss"] == 3.0


def test_an_interrupt_marks_the_run_killed(tracker: MlflowTracker) -> None:
    with pytest.raises(KeyboardInterrupt), tracker.run("train"):
        raise KeyboardInterrupt
    assert runs(tracker)["train"].info.status == "KILLED"


def test_a_run_of_a_killed_process_is_closed_by_the_next_one(
    tracker: MlflowTracker, address: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    script = (
        "import sys, time; from pathlib import Path; from saeops.adapters.mlflow import MlflowTracker\n"
        "tracker = MlflowTracker(sys.argv[1], sys.argv[2], artifacts=Path(sys.argv[3]))\n"
        "with tracker.run('harvest'):\n"
        "    print('running', flush=True); time.sleep(300)\n"
    )
    arguments = [address, request.node.name, str(tmp_path / "artifacts")]
    with subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == b"running"
        child.kill()
    with tracker.run("train"):
        found = runs(tracker)
        assert found["harvest"].info.status == "KILLED"
        assert found["train"].info.status == "RUNNING"


def test_flatten_writes_lists_as_json_and_keeps_text() -> None:
    assert flatten({"a": {"b": [1, 2]}, "c": "x", "d": None}) == {"a.b": "[1, 2]", "c": "x", "d": "null"}


def test_the_fake_takes_what_the_real_one_takes() -> None:
    real, fake = inspect.signature(MlflowTracker.run), inspect.signature(NullTracker.run)
    assert list(real.parameters) == list(fake.parameters)
    with NullTracker().run("train", params={"k": 1}) as run:
        run.metrics({"loss": 1.0}, step=1)
        run.figure("x", Figure())
        run.tag("a", "b")
        assert run.run_id is None


def test_a_first_use_prints_nothing(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from saeops.adapters.mlflow import MlflowTracker\n"
        "folder = Path(sys.argv[1])\n"
        "tracker = MlflowTracker(f'sqlite:///{folder}/new/mlflow.db', 'quiet', artifacts=folder)\n"
        "with tracker.run('harvest'): pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout + done.stderr == "", "it would bury the progress bars"


def test_this_process_is_seen_as_alive() -> None:
    from saeops.adapters.mlflow import _alive

    assert _alive(os.getpid())
    with subprocess.Popen([sys.executable, "-c", "pass"]) as gone:
        gone.wait(SECONDS_FOR_A_CHILD)
    assert gone.returncode != -signal.SIGKILL
    assert not _alive(gone.pid)
