"""One contract for the registry's readable copy, held by MLflow and by the fake."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saeops.adapters.projection import (
    MemoryProjection,
    MlflowProjection,
    dictionary_name,
    registered_name,
)
from saeops.errors import VersionUnknown
from saeops.ports import RegistryProjection
from tests.mlflow_server import MlflowServer

NAME = "tiny/blocks.1.resid_post"
ONE, TWO = "1" * 64, "2" * 64


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('tracking') / 'mlflow.db'}"


@pytest.fixture(params=["memory", "sqlite", pytest.param("server", marks=pytest.mark.slow)])
def projection(request: pytest.FixtureRequest, tmp_path: Path) -> RegistryProjection:
    if request.param == "memory":
        return MemoryProjection()
    # A database of its own costs seconds, so the tests share one and each takes a name of its own.
    if request.param == "sqlite":
        address = request.getfixturevalue("address")
        return MlflowProjection(address, "projection", artifacts=tmp_path / "mlartifacts")
    server: MlflowServer = request.getfixturevalue("mlflow_server")
    return MlflowProjection(server.address, "projection", artifacts=tmp_path / "unused")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return "tiny/" + "".join(c if c.isalnum() else "-" for c in request.node.name.lower()).strip("-")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    (folder / "sae").mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    (folder / "sae" / "sae.safetensors").write_bytes(b"weights")
    return folder


def test_an_unknown_name_has_no_aliases(projection: RegistryProjection, name: str) -> None:
    assert projection.aliases(name) == {}


def test_an_alias_points_to_a_registered_digest(projection: RegistryProjection, name: str, bundle: Path) -> None:
    projection.register(name, ONE, bundle, {"site": "blocks.1.resid_post"})
    projection.register(name, TWO, bundle, {})
    projection.point(name, "champion", ONE)
    projection.point(name, "candidate", TWO)
    assert projection.aliases(name) == {"champion": ONE, "candidate": TWO}
    projection.point(name, "champion", TWO)
    assert projection.aliases(name) == {"champion": TWO, "candidate": TWO}


def test_registering_twice_is_registering_once(projection: RegistryProjection, name: str, bundle: Path) -> None:
    projection.register(name, ONE, bundle, {"sequence": "1"})
    projection.register(name, ONE, bundle, {"sequence": "2"})
    projection.point(name, "champion", ONE)
    assert projection.aliases(name) == {"champion": ONE}
    (version,) = projection.shown(name).versions
    assert (version.number, version.digest, version.tags) == (1, ONE, {"digest": ONE, "sequence": "1"})


def test_tags_of_versions_and_of_the_name_are_set_and_removed(
    projection: RegistryProjection, name: str, bundle: Path
) -> None:
    projection.register(name, ONE, bundle, {"sequence": "1", "verdict": None})
    projection.tag(name, ONE, {"sequence": "2", "who": "ada"})
    projection.tag(name, None, {"action": "promote", "reason": "it is better"})
    projection.tag(name, ONE, {"who": None, "never": None})
    projection.tag(name, None, {"reason": None})
    shown = projection.shown(name)
    assert shown.version_of(ONE).tags == {"digest": ONE, "sequence": "2"}
    assert {tag: value for tag, value in shown.tags.items() if tag != "saeops.name"} == {"action": "promote"}
    with pytest.raises(VersionUnknown, match="reconcile"):
        projection.tag(name, TWO, {"sequence": "3"})


def test_a_version_is_known_by_its_files_and_not_by_its_tags(
    projection: RegistryProjection, name: str, bundle: Path
) -> None:
    projection.register(name, ONE, bundle, {})
    projection.register(name, TWO, bundle, {})
    projection.tag(name, ONE, {"digest": TWO})
    assert [version.digest for version in projection.shown(name).versions] == [ONE, TWO]
    projection.point(name, "champion", TWO)
    assert projection.shown(name).aliases == {"champion": 2}


def test_an_alias_can_be_removed_and_removed_again(
    projection: RegistryProjection, name: str, bundle: Path
) -> None:
    projection.register(name, ONE, bundle, {})
    projection.point(name, "candidate", ONE)
    projection.point(name, "candidate", None)
    projection.point(name, "candidate", None)
    assert projection.aliases(name) == {}


def test_an_alias_to_an_unregistered_digest_is_refused(
    projection: RegistryProjection, name: str, bundle: Path
) -> None:
    with pytest.raises(VersionUnknown, match="reconcile"):
        projection.point(name, "champion", ONE)
    projection.register(name, ONE, bundle, {})
    with pytest.raises(VersionUnknown, match=TWO[:12]):
        projection.point(name, "champion", TWO)


def test_removing_an_alias_of_an_unknown_name_is_no_error(projection: RegistryProjection, name: str) -> None:
    projection.point(name, "champion", None)
    assert projection.aliases(name) == {}


def test_a_version_in_mlflow_holds_the_bundles_own_files(
    address: str, tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    artifacts = tmp_path / "mlartifacts"
    MlflowProjection(address, "files", artifacts=artifacts).register("tiny/files", ONE, bundle, {})
    (weights,) = artifacts.rglob("sae.safetensors")
    assert weights.read_bytes() == b"weights"
    assert not list(artifacts.rglob("*.pkl"))
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "mlartifacts"}


segment = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,8}", fullmatch=True)


@given(st.lists(segment, min_size=1, max_size=4).map("/".join))
def test_names_survive_the_way_to_mlflow_and_back(name: str) -> None:
    assert not set("/:") & set(registered_name(name))
    assert dictionary_name(registered_name(name)) == name
