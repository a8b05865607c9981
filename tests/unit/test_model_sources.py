"""Places where new model versions appear: a folder, MLflow, a hub; and what is not taken yet."""

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from saeops.adapters.mlflow import Connection
from saeops.adapters.model_source import resolve_model
from saeops.adapters.model_versions import FolderVersions, HubVersions, MlflowVersions, lacking, open_source
from saeops.drift.policy.config import FolderSource, HubSource, MlflowSource
from saeops.drift.policy.sources import Glimpse, ModelVersion, NotWhole
from saeops.errors import ModelUnavailable, UsageError
from saeops.params import ModelParams


@pytest.fixture
def folder(tiny_model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))


def change_weights(folder: Path) -> None:
    (path,) = folder.glob("*.safetensors")
    weights = load_file(path)
    name = sorted(weights)[0]
    save_file({**weights, name: weights[name] + 1}, path, metadata={"format": "pt"})


def glimpse(source: FolderVersions | MlflowVersions | HubVersions) -> Glimpse:
    found = source.look()
    assert isinstance(found, Glimpse), found
    return found


def version(source: FolderVersions | MlflowVersions) -> ModelVersion:
    found = source.take(glimpse(source))
    assert isinstance(found, ModelVersion), found
    return found


# ── folders ─────────────────────────────────────────────────────────────────


def test_a_folders_version_is_the_digest_that_its_model_gets_when_it_is_loaded(
    folder: Path, tmp_path: Path
) -> None:
    found = version(FolderVersions(folder))
    assert found.digest == resolve_model(ModelParams(ref=found.ref), tmp_path).digest


def test_a_folder_looks_different_once_its_weights_change(folder: Path) -> None:
    source = FolderVersions(folder)
    before, digest = glimpse(source), version(source).digest
    assert glimpse(source) == before
    assert not before.final
    change_weights(folder)
    assert glimpse(source) != before
    assert version(source).digest != digest


def test_a_half_copied_folder_is_not_taken(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "copied"
    target.mkdir()
    (weights,) = folder.glob("*.safetensors")
    shutil.copy(weights, target)
    assert "config.json" in lacking(target)
    shutil.copy(folder / "config.json", target)
    assert lacking(target) == ""
    data = weights.read_bytes()
    for length in (0, 4, 7, 8, 100, len(data) // 2, len(data) - 1):
        (target / weights.name).write_bytes(data[:length])
        assert "shorter than its header says" in lacking(target), length
        assert isinstance(FolderVersions(target).look(), NotWhole)


def test_weights_that_an_index_names_must_all_be_there(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    parts = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    save_file({"a": torch.zeros(3)}, tmp_path / parts["a"])
    assert lacking(tmp_path) == f"{parts['b']} of model.safetensors.index.json"
    save_file({"b": torch.zeros(3)}, tmp_path / parts["b"])
    assert lacking(tmp_path) == ""
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": ')
    assert "not readable" in lacking(tmp_path)


@pytest.mark.parametrize("header", [b"{", b"[]", b'{"a": {"data_offsets": 3}}', b'{"a": {}}'])
def test_weights_whose_header_says_nothing_are_not_taken(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert isinstance(FolderVersions(tmp_path).look(), NotWhole)


def test_what_changes_while_it_is_read_is_not_taken(folder: Path) -> None:
    source = FolderVersions(folder)
    before = glimpse(source)
    change_weights(folder)
    assert isinstance(source.take(before), NotWhole)


def test_of_several_models_below_a_folder_the_one_written_last_counts(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "checkpoints"
    for step in ("step-9", "step-10"):
        shutil.copytree(folder, home / step)
    change_weights(home / "step-9")
    assert version(FolderVersions(home)).ref == str(home / "step-9")


def test_nothing_there_is_nothing_to_take(tmp_path: Path) -> None:
    assert isinstance(FolderVersions(tmp_path / "no").look(), NotWhole)
    assert isinstance(FolderVersions(tmp_path).look(), NotWhole)


# ── what params describe ────────────────────────────────────────────────────


def test_params_open_the_source_that_they_describe(tmp_path: Path) -> None:
    def opened(source: FolderSource | MlflowSource | HubSource, tracking: str = "sqlite:///x.db") -> str:
        return open_source(source, root=tmp_path, cache=tmp_path, tracking=tracking, artifacts=tmp_path).address

    assert opened(FolderSource(path="models/base")) == f"folder:{tmp_path}/models/base"
    assert opened(MlflowSource(model="base", alias="production")) == "mlflow:base@production"
    assert opened(HubSource(id="owner/name")) == "hub:owner/name@main"
    with pytest.raises(UsageError, match="SAEOPS_TRACKING is none"):
        opened(MlflowSource(model="base", alias="production"), tracking="none")


# ── the hub ─────────────────────────────────────────────────────────────────


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict[str, str]]]:
    """A server that answers as the hub does for one repository: its address, and revision → commit."""
    commits = {"main": "a" * 40}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            revision = self.path.partition("?")[0].removeprefix("/api/models/owner/name/revision/")
            commit = commits.get(revision)
            body = json.dumps({"id": "owner/name", "sha": commit, "siblings": [], "tags": [], "private": False})
            self.send_response(200 if commit else 404)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(body.encode() if commit else b'{"error": "Revision not found"}')

        def log_message(self, *args: object) -> None: ...

    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", commits
    server.shutdown()
    server.server_close()


def test_a_hub_branch_is_at_the_commit_that_the_hub_says(hub: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    address, commits = hub
    source = HubVersions(HubSource(id="owner/name"), tmp_path, endpoint=address)
    assert source.look() == Glimpse("a" * 40, final=True)
    commits["main"] = "b" * 40
    assert source.look() == Glimpse("b" * 40, final=True)


def test_a_hub_that_knows_no_such_revision_is_named(hub: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    source = HubVersions(HubSource(id="owner/name", revision="v9"), tmp_path, endpoint=hub[0])
    with pytest.raises(ModelUnavailable, match="hub:owner/name@v9 is not to be had"):
        source.look()


def test_a_hub_that_is_switched_off_says_how_to_switch_it_on(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="HF_HUB_OFFLINE"):
        HubVersions(HubSource(id="owner/name"), tmp_path).look()


# ── MLflow ──────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_an_alias_in_mlflow_leads_to_the_version_that_is_fetched_once(folder: Path, tmp_path: Path) -> None:
    connection = Connection(f"sqlite:///{tmp_path / 'mlflow.db'}", "models", artifacts=tmp_path / "artifacts")
    source = MlflowVersions(MlflowSource(model="base", alias="production"), connection, tmp_path / "cache")
    assert isinstance(source.look(), NotWhole)
    digests = []
    for number in ("1", "2"):
        register(connection, folder)
        connection.client.set_registered_model_alias("base", "production", number)
        assert source.look() == Glimpse(number, final=True)
        found = version(source)
        assert found.digest == resolve_model(ModelParams(ref=str(folder)), tmp_path).digest
        digests.append(found.digest)
        change_weights(folder)
    assert digests[0] != digests[1]
    shutil.rmtree(tmp_path / "artifacts")
    assert version(source).digest == digests[1]


def register(connection: Connection, folder: Path) -> None:
    """A new version of the registered model `base` that holds the folder's files."""
    client = connection.client
    if not client.search_registered_models("name = 'base'"):
        client.create_registered_model("base")
    run = client.create_run(connection.experiment_id)
    client.log_artifacts(run.info.run_id, str(folder), "model")
    client.create_model_version("base", f"{run.info.artifact_uri}/model", run.info.run_id)
    client.set_terminated(run.info.run_id)
