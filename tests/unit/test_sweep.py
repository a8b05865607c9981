"""A sweep: several SAEs over one pass, each with the bytes of a run of its own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from saeops.activations.reader import ActivationSet
from saeops.activations.shuffle import ShuffledTokens
from saeops.adapters.watch import QuietWatch
from saeops.errors import MemoryShort, ParamsInvalid
from saeops.params import Params, sweep_members
from saeops.refs import Workspace
from saeops.sealed import open_sealed, verify
from saeops.stages import sweep, train, training
from saeops.tables import read_table
from saeops.training.machine import MachineMemory
from saeops.training.sweep import SweepTable
from tests.killing import Killed, KillingWatch
from tests.tiny import tiny_params

SHORT = {"tokens": 256 * 24, "checkpoint_every_steps": 5, "log_every_steps": 4}
MEMBERS: list[dict[str, Any]] = [
    {},
    {"k": 8, "expansion_factor": 8},
    {"variant": "batch_topk"},
    {"variant": "relu_l1", "checkpoint_every_steps": 7},
    {"seed": 1},
]
NAMES = [
    "train",
    "k-8_expansion_factor-8",
    "variant-batch_topk",
    "variant-relu_l1_checkpoint_every_steps-7",
    "seed-1",
]


def params_for(members: list[dict[str, Any]], **changes: Any) -> Params:
    return tiny_params(train=SHORT | {"sweep": members} | changes)


@pytest.fixture
def space(tmp_path: Path, tiny_activations: ActivationSet) -> Workspace:
    """A workspace that holds the tiny activations."""
    space = Workspace(root=tmp_path / "checkout")
    shutil.copytree(tiny_activations.sealed.path, space.activations)
    return space


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_activations: ActivationSet) -> Workspace:
    """A finished sweep of all members."""
    space = Workspace(root=tmp_path_factory.mktemp("whole"))
    shutil.copytree(tiny_activations.sealed.path, space.activations)
    sweep.run(params_for(MEMBERS), space, watch=QuietWatch())
    return space


def digests(space: Workspace) -> dict[str, str]:
    return {path.name: verify(path, kind="sae").digest for path in space.sweep.iterdir() if path.is_dir()}


def test_every_member_leaves_what_a_run_of_its_own_leaves(whole: Workspace, space: Workspace) -> None:
    verify(whole.sweep, kind="sweep")
    made = digests(whole)
    members = sweep_members(params_for(MEMBERS[:4]))
    for member in members:
        assert train.run(member.params, space, watch=QuietWatch()).digest == made[member.name]


def test_the_table_names_each_member_with_what_it_does_on_held_out_documents(whole: Workspace) -> None:
    table = read_table(whole.sweep / "sweep.parquet", SweepTable, rows=5).set_index("name")
    assert table.index.tolist() == NAMES
    assert table.loc["k-8_expansion_factor-8", "d_sae"] == 256
    assert table["seed"].tolist() == [0, 0, 0, 0, 1]
    assert table["k"].fillna(0).tolist() == [4, 8, 4, 0, 4]
    assert table.loc["train", "l0"] == pytest.approx(4, abs=0.2)
    assert (table["explained_variance_low"] <= table["explained_variance"]).all()
    assert (table["explained_variance"] <= table["explained_variance_high"]).all()
    assert (whole.sweep / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert table.loc["train", "digest"] == open_sealed(whole.sweep / "train", kind="sae").digest


@pytest.mark.parametrize("after", [3, 64, 119])
def test_a_sweep_killed_at_any_point_ends_with_the_same_bytes(
    whole: Workspace, space: Workspace, after: int
) -> None:
    for kill in (after, 9):
        with pytest.raises(Killed):
            sweep.run(params_for(MEMBERS), space, watch=KillingWatch(kill))
    ref = sweep.run(params_for(MEMBERS), space, watch=QuietWatch())
    assert ref.digest == open_sealed(whole.sweep, kind="sweep").digest


def test_the_data_is_read_once_however_many_members_there_are(
    space: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[int, int] = {}
    original = ShuffledTokens.__iter__

    def counting(tokens: ShuffledTokens) -> Iterator[Any]:
        for batch in original(tokens):
            given[id(tokens)] = given.get(id(tokens), 0) + 1
            yield batch

    monkeypatch.setattr(ShuffledTokens, "__iter__", counting)
    sweep.run(params_for([{"k": 2}, {"k": 3}, {"k": 5}]), space, watch=QuietWatch())
    # Once for the sample that the normalisation is estimated from, once for training.
    assert len(given) == 2
    assert max(given.values()) == 24


def test_what_is_trained_already_is_not_trained_again(whole: Workspace, space: Workspace) -> None:
    shutil.copytree(whole.sweep, space.sweep)
    watch = QuietWatch()
    sweep.run(params_for([*MEMBERS[:2], {"k": 2}]), space, watch=watch)
    trained = {name.split("/")[0] for _, values in watch.logged for name in values if name.endswith("/loss")}
    assert trained == {"k-2"}
    assert digests(space) == {name: digests(whole)[name] for name in ("train", "k-8_expansion_factor-8")} | {
        "k-2": digests(space)["k-2"]
    }


def test_a_sweep_says_what_all_members_need_and_logs_each(space: Workspace) -> None:
    watch = QuietWatch()
    sweep.run(params_for([{"k": 2}, {"k": 3}]), space, watch=watch)
    assert any("2 SAEs together need up to" in line and "GB of memory" in line for line in watch.said)
    logged = {name for _, values in watch.logged for name in values}
    assert {"k-2/dead_fraction", "k-3/explained_variance", "k-3/eval.l0"} <= logged
    assert "sweep" in watch.figures


def test_train_neither_sees_nor_changes_with_the_sweep(space: Workspace) -> None:
    first = train.run(params_for([]), space, watch=QuietWatch())
    assert train.run(params_for([{"k": 2}]), space, watch=QuietWatch()).digest == first.digest


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([{"batch_size": 128}], r"train\.sweep\.0\.batch_size: members share one pass"),
        ([{}, {"tokens": 128}], r"train\.sweep\.1\.tokens: members share one pass"),
        ([{"kk": 3}], r"train\.sweep\.0\.kk: unknown key"),
        ([{"k": 0}, {"seed": -1}], r"train\.sweep\.0\.k: (.|\n)*train\.sweep\.1\.seed: "),
        ([{"variant": "nope"}], r"train\.sweep\.0\.train: .*'nope'"),
        ([{"k": 2}, {"k": 2}], r"train\.sweep\.1: is the same as train\.sweep\.0"),
        ([{"variant": "relu_l1", "k": 3}], r"train\.sweep\.0\.k: unknown key"),
    ],
)
def test_members_with_faults_are_refused_by_their_place(members: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ParamsInvalid, match=message):
        params_for(members)


def test_all_members_that_do_not_fit_the_model_are_named(space: Workspace) -> None:
    with pytest.raises(
        ParamsInvalid, match=r"train\.sweep\.0\.k: must be(.|\n)*train\.sweep\.2\.expansion_factor"
    ):
        sweep.run(params_for([{"k": 999}, {}, {"expansion_factor": 1.01}]), space, watch=QuietWatch())


def test_a_sweep_of_nothing_says_how_to_write_one(space: Workspace) -> None:
    with pytest.raises(ParamsInvalid, match=r"train\.sweep: names no SAEs; e\.g\."):
        sweep.run(params_for([]), space, watch=QuietWatch())


def test_members_that_fit_alone_and_not_together_are_refused(
    space: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = params_for([{"k": number} for number in range(1, 9)])
    acts = ActivationSet.open(space.activations)
    data = training.TrainingData(acts, params.train, seed=0)
    alone = data.memory_needed(params.train, 128).total
    monkeypatch.setattr(training, "machine_memory", lambda _: MachineMemory(alone + 1000, alone + 1000))
    with pytest.raises(MemoryShort, match=r"training needs up to"):
        sweep.run(params, space, watch=QuietWatch())


@pytest.mark.slow
def test_the_verb_prints_each_member_and_remembers_no_choice(space: Workspace) -> None:
    values = tiny_params(train=SHORT).model_dump(mode="json")
    (space.root / "params.yaml").write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "saeops.cli", "sweep", "--set", "train.sweep=[{k: 2}, {variant: gated}]"]
    environment = os.environ | {"SAEOPS_TRACKING": "none", "SAEOPS_CACHE": str(space.root / "cache")}

    def said(*more: str) -> str:
        done = subprocess.run(
            [*command, *more], cwd=space.root, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    table = said()
    assert all(word in table for word in ("k-2", "variant-gated", "explained variance", "documents"))
    members = json.loads(said("--json"))["members"]
    assert [member["name"] for member in members] == ["k-2", "variant-gated"]
    assert not (space.root / "profile.yaml").exists()
