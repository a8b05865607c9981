"""Fixtures that every room's tests share."""
# ruff: noqa: E402

import hashlib
import os

# Before anything imports transformers or torch: no hub, and one thread: tensors here are tiny, and on a
# busy machine threads that wait for one another cost tenfold.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

# Shapes in signatures are checked at run time; the hook must stand before what it checks is imported.
install_import_hook("saeops.activations", "beartype.beartype")

from saeops.activations.reader import ActivationSet
from saeops.adapters.corpora import open_corpus
from saeops.adapters.models import TransformersModel, load_model
from saeops.params import ModelParams
from saeops.refs import Workspace
from saeops.sae.native import library
from saeops.sae.native.build import NotBuilt
from saeops.sae.native.library import Library
from saeops.stages import harvest
from tests import mlflow_server as mlflow_servers
from tests import postgres, seaweed
from tests.tiny import RecordingWatch, save_tiny_model, tiny_params, write_tiny_corpus

torch.set_num_threads(1)
# How long an example takes says nothing about whether it is right.
settings.register_profile("saeops", deadline=None)
settings.load_profile("saeops")


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny Llama (3 layers, d_model 32) with its tokenizer."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of about 80 short English documents."""
    return write_tiny_corpus(tmp_path_factory.mktemp("corpora") / "topics")


@pytest.fixture
def watch() -> RecordingWatch:
    return RecordingWatch()


@pytest.fixture(scope="session")
def tiny_model(tiny_model_folder: Path) -> TransformersModel:
    """The tiny Llama, loaded."""
    return load_model(ModelParams(ref=str(tiny_model_folder), device="cpu"), Path("unused"))


@pytest.fixture(scope="session")
def tiny_activations(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: TransformersModel, tiny_corpus: Path
) -> ActivationSet:
    """A harvested set of the tiny model on the tiny corpus, by `tiny_params()`."""
    space = Workspace(root=tmp_path_factory.mktemp("harvested"))
    params = tiny_params(corpus={"path": str(tiny_corpus)})
    corpus = open_corpus(params.corpus)
    harvest.run(params, space, model=tiny_model, corpus=corpus, watch=RecordingWatch())
    return ActivationSet.open(space.activations)


@pytest.fixture(scope="session")
def kernels_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled kernels go, once a session."""
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(scope="module")
def kernels(kernels_folder: Path) -> Iterator[Library]:
    """The compiled kernels, on for one file of tests; without a compiler there is nothing to test in it."""
    found = library.enable(kernels_folder)
    if isinstance(found, NotBuilt):
        pytest.skip(found.reason)
    yield found
    library.disable()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[seaweed.Seaweed]:
    """SeaweedFS, once a session."""
    with seaweed.running() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Postgres]:
    """Postgres, once a session."""
    with postgres.running() as server:
        yield server


@pytest.fixture(scope="session")
def mlflow_server(
    postgres_server: postgres.Postgres, s3_server: seaweed.Seaweed, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[mlflow_servers.MlflowServer]:
    """An MLflow server on both, once a session."""
    backend = postgres_server.create("mlflow")
    with mlflow_servers.running(backend, s3_server, tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture
def s3_address(s3_server: seaweed.Seaweed, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place of its own on that server, and the environment that leads there."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return f"s3://{seaweed.BUCKET}/{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]}"
