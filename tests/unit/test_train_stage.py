"""The train stage on real harvested activations of the tiny model."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from saeops.activations.reader import ActivationSet
from saeops.adapters.watch import QuietWatch
from saeops.errors import (
    CheckpointDamaged,
    CheckpointMismatch,
    FolderDamaged,
    MemoryShort,
    NonFinite,
    ParamsInvalid,
    SiteUnknown,
    StageMissing,
)
from saeops.files import publish_folder
from saeops.params import Params
from saeops.refs import Workspace
from saeops.sae.canonical import Sae
from saeops.sealed import open_sealed, seal, verify
from saeops.stages import train, training
from saeops.tables import read_table
from saeops.training.config import TrainingConfig
from saeops.training.curve import CurveTable
from saeops.training.machine import MachineMemory
from tests.killing import Killed, KillingWatch
from tests.tiny import tiny_params
from tests.variants import VARIANTS as EVERY_VARIANT

SHORT = {"tokens": 256 * 24, "checkpoint_every_steps": 5, "log_every_steps": 4}
VARIANTS: list[dict[str, Any]] = [
    variant.model_dump(mode="json") | ({"k": 4} if hasattr(variant, "k") else {}) for variant in EVERY_VARIANT
]
TOPK = VARIANTS[0]


def params_for(variant: dict[str, Any], **changes: Any) -> Params:
    base = tiny_params().model_dump(mode="json")
    shared = {name: base["train"][name] for name in TrainingConfig.model_fields}
    base["train"] = shared | variant | SHORT | changes
    return Params.model_validate(base)


@pytest.fixture
def space(tmp_path: Path, tiny_activations: ActivationSet) -> Workspace:
    """A workspace that holds the tiny activations."""
    space = Workspace(root=tmp_path / "checkout")
    shutil.copytree(tiny_activations.sealed.path, space.activations)
    return space


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v["variant"])
def test_a_run_leaves_a_sealed_sae_with_its_curve(space: Workspace, variant: dict[str, Any]) -> None:
    watch = QuietWatch()
    ref = train.run(params_for(variant), space, watch=watch)
    assert verify(space.sae, kind="sae").digest == ref.digest
    sae = Sae.load(space.sae)
    acts = ActivationSet.open(space.activations)
    assert (sae.meta.d_model, sae.meta.d_sae, sae.k) == (32, 128, 4 if variant["variant"] == "topk" else None)
    assert (sae.meta.model, sae.meta.policy) == (acts.model, acts.policy)
    assert sae.meta.norm_limit == acts.norm_limit(sae.meta.site)
    curve = read_table(space.sae / train.CURVE, CurveTable, rows=6)
    assert curve["step"].tolist() == [4, 8, 12, 16, 20, 24]
    assert [step for step, _ in watch.logged] == curve["step"].tolist()
    assert "loss_curve" in watch.figures
    assert any("GB of memory" in line for line in watch.said)
    assert not list((space.root / "artifacts" / ".work").iterdir())


def test_the_folded_sae_explains_raw_activations_as_well_as_training_did(space: Workspace) -> None:
    train.run(params_for(TOPK, tokens=256 * 200, lr=3e-3), space, watch=QuietWatch())
    acts, sae = ActivationSet.open(space.activations), Sae.load(space.sae)
    x_TD = torch.cat([batch.activations for batch in acts.batches(sae.meta.site, "train", 512)])
    error = (x_TD - sae.reconstruct(x_TD)).square().sum() / (x_TD - x_TD.mean(0)).square().sum()
    reported = open_sealed(space.sae, kind="sae").summary["train_explained_variance"]
    assert float(1 - error) == pytest.approx(reported, abs=0.06)


def test_a_second_run_keeps_what_is_there_and_other_params_do_not(space: Workspace) -> None:
    params = params_for(TOPK)
    first = train.run(params, space, watch=QuietWatch())
    stamp = (space.sae / "sae.safetensors").stat().st_mtime_ns
    assert train.run(params, space, watch=QuietWatch()) == first
    assert (space.sae / "sae.safetensors").stat().st_mtime_ns == stamp
    assert train.run(params_for(TOPK, lr=1e-3), space, watch=QuietWatch()).digest != first.digest


def test_a_changed_sae_is_not_silently_replaced(space: Workspace) -> None:
    train.run(params_for(TOPK), space, watch=QuietWatch())
    path = space.sae / "sae.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(FolderDamaged, match=r"sae\.safetensors"):
        train.run(params_for(TOPK), space, watch=QuietWatch())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"k": 4000}, ParamsInvalid, r"train\.k: must be ≤ d_sae \(4000 > 128\)"),
        ({"batch_size": 10**6}, ParamsInvalid, r"train\.batch_size: must be ≤ the \d+ train tokens"),
        ({"expansion_factor": 1.01}, ParamsInvalid, r"train\.expansion_factor"),
    ],
)
def test_choices_that_do_not_fit_are_refused_before_anything_is_written(
    space: Workspace, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train.run(params_for(TOPK | changes), space, watch=QuietWatch())
    assert not space.sae.exists()


def test_a_site_that_was_not_harvested_is_refused(space: Workspace) -> None:
    params = params_for(TOPK)
    elsewhere = params.train.model_copy(update={"site": "blocks.2.resid_post"})
    with pytest.raises(SiteUnknown, match=r"blocks\.1\.resid_post"):
        train.run(params.model_copy(update={"train": elsewhere}), space, watch=QuietWatch())


def test_nothing_harvested_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(StageMissing, match="saeops harvest"):
        train.run(params_for(TOPK), Workspace(root=tmp_path), watch=QuietWatch())


def interrupted(space: Workspace, params: Params, *, after: int) -> Path:
    """Train until `after` steps, and give the folder of checkpoints left behind."""
    with pytest.raises(Killed):
        train.run(params, space, watch=KillingWatch(after))
    (folder,) = (space.root / "artifacts" / ".work").glob("train-*/checkpoints")
    return folder


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v["variant"])
def test_killed_before_at_and_after_the_end_of_an_epoch_a_run_ends_with_the_same_bytes(
    space: Workspace, variant: dict[str, Any]
) -> None:
    params = params_for(variant)
    acts = ActivationSet.open(space.activations)
    assert 5 * 256 < acts.count(params.train.site, "train") < 24 * 256, "the run crosses an epoch's end"
    whole = train.run(params, space, watch=QuietWatch())
    shutil.rmtree(space.sae)
    for after in (2, 14, 6, 9):
        with pytest.raises(Killed):
            train.run(params, space, watch=KillingWatch(after))
    watch = QuietWatch()
    assert train.run(params, space, watch=watch).digest == whole.digest
    # Two steps leave no checkpoint; then 14 leave that of step 10, 6 more that of 15, 9 more that of the last.
    assert any("going on after step 24" in line for line in watch.said)


def test_a_damaged_newest_checkpoint_is_named_and_the_result_is_the_same(space: Workspace) -> None:
    params = params_for(TOPK)
    whole = train.run(params, space, watch=QuietWatch())
    shutil.rmtree(space.sae)
    folder = interrupted(space, params, after=17)
    (folder / "step-000000015.safetensors").write_bytes(b"torn")
    watch = QuietWatch()
    assert train.run(params, space, watch=watch).digest == whole.digest
    assert any("step-000000015.safetensors" in line and "damaged" in line for line in watch.said)
    assert any("after step 10" in line for line in watch.said)


def test_when_every_checkpoint_is_damaged_training_stops_and_says_what_to_remove(space: Workspace) -> None:
    params = params_for(TOPK)
    folder = interrupted(space, params, after=17)
    for path in folder.glob("*.json"):
        path.write_bytes(b"{}")
    with pytest.raises(CheckpointDamaged, match=r"checkpoints"):
        train.run(params, space, watch=QuietWatch())
    assert not space.sae.exists()


def test_checkpoints_of_other_params_are_never_picked_up(space: Workspace) -> None:
    other = params_for(TOPK, lr=1e-3)
    whole = train.run(other, space, watch=QuietWatch())
    shutil.rmtree(space.sae)
    interrupted(space, params_for(TOPK), after=17)
    watch = QuietWatch()
    assert train.run(other, space, watch=watch).digest == whole.digest
    assert not any("going on" in line for line in watch.said)


def test_a_checkpoint_of_another_variant_among_this_runs_is_refused_by_name(space: Workspace) -> None:
    params, other = params_for(TOPK), params_for(VARIANTS[1], k=4)
    theirs = interrupted(space, other, after=17)
    stash = space.root / "stash"
    theirs.parent.replace(stash)
    ours = interrupted(space, params, after=7)
    for path in (stash / "checkpoints").iterdir():
        shutil.copy(path, ours)
    with pytest.raises(
        CheckpointMismatch, match=r"step-000000015.*train\.variant is 'batch_topk' there and 'topk'"
    ):
        train.run(params, space, watch=QuietWatch())
    assert not space.sae.exists()


def test_nan_on_disk_is_named_with_its_document_and_position(space: Workspace) -> None:
    acts = ActivationSet.open(space.activations)
    shard = acts.shard_list("blocks.1.resid_post", "train")[0]
    tensors = load_file(space.activations / shard.name)
    tensors["activations"][7, 5] = float("nan")
    document, position = int(tensors["document"][7]), int(tensors["position"][7])
    save_file(tensors, space.activations / shard.name)
    sealed = acts.sealed
    seal(space.activations, kind=sealed.kind, version=sealed.version, inputs=sealed.inputs, summary=sealed.summary)
    with pytest.raises(
        NonFinite, match=rf"at step \d+ hold NaN or infinity \(document {document}, position {position}\)"
    ):
        train.run(params_for(TOPK), space, watch=QuietWatch())


def test_a_machine_too_small_is_refused_before_training(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "machine_memory", lambda _: MachineMemory(10**6, 10**6))
    with pytest.raises(MemoryShort, match=r"which has 0\.00 GB(.|\n)*lower"):
        train.run(params_for(TOPK), space, watch=QuietWatch())
    assert not space.sae.exists()


@pytest.mark.slow
@pytest.mark.parametrize("steps", [3, 14, 24], ids=lambda n: f"step {n}")
def test_a_run_killed_for_real_and_rerun_has_the_digest_of_the_unbroken_one(
    space: Workspace, tmp_path: Path, steps: int
) -> None:
    params = params_for(TOPK)
    whole = train.run(params, space, watch=QuietWatch())
    shutil.rmtree(space.sae)
    params_file = tmp_path / "params.json"
    params_file.write_text(params.model_dump_json())
    command = [sys.executable, "-m", "tests.killing", str(params_file), str(space.root), str(steps)]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not space.sae.exists()
    watch = QuietWatch()
    assert train.run(params, space, watch=watch).digest == whole.digest
    resumed = any("going on after step" in line for line in watch.said)
    assert resumed == (steps >= SHORT["checkpoint_every_steps"])


@pytest.mark.parametrize("published", [False, True])
def test_a_kill_round_the_last_rename_costs_nothing(
    space: Workspace, monkeypatch: pytest.MonkeyPatch, published: bool
) -> None:
    params = params_for(TOPK)
    whole = train.run(params, space, watch=QuietWatch())
    shutil.rmtree(space.sae)

    def killed(work: Path, target: Path) -> None:
        if published:
            publish_folder(work, target)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(train, "publish_folder", killed)
        with pytest.raises(Killed):
            train.run(params, space, watch=QuietWatch())
    assert train.run(params, space, watch=QuietWatch()).digest == whole.digest
    assert not list((space.root / "artifacts" / ".work").iterdir())
