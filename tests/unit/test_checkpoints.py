"""Checkpoints: the newest whole one is found, damage is named, old ones go."""

from pathlib import Path

import pytest
import torch

from saeops.errors import CheckpointDamaged
from saeops.training.checkpoint import Checkpoint, CheckpointFolder


def at(step: int) -> Checkpoint:
    return Checkpoint(
        step, {"w": torch.full((4,), float(step)), "n": torch.tensor(step)}, {"scale": 0.1, "curve": []}
    )


def folder_with(path: Path, *steps: int, keep: int = 3) -> CheckpointFolder:
    folder = CheckpointFolder(path, keep=keep)
    for step in steps:
        folder.write(at(step))
    return folder


def test_no_checkpoint_is_no_fault(tmp_path: Path) -> None:
    newest = CheckpointFolder(tmp_path / "absent", keep=2).newest()
    assert newest.checkpoint is None
    assert newest.damaged == ()


def test_the_newest_comes_back_to_the_bit(tmp_path: Path) -> None:
    found = folder_with(tmp_path, 5, 10).newest().checkpoint
    assert found is not None
    assert found.step == 10
    assert found.facts == {"scale": 0.1, "curve": []}
    assert torch.equal(found.tensors["w"], at(10).tensors["w"])
    assert found.tensors["n"].dtype == torch.int64


def test_only_the_last_few_are_kept(tmp_path: Path) -> None:
    folder_with(tmp_path, 1, 2, 3, 4, 10, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-000000004.json",
        "step-000000004.safetensors",
        "step-000000010.json",
        "step-000000010.safetensors",
    ]


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
@pytest.mark.parametrize("how", ["flip", "cut", "empty"])
def test_a_damaged_newest_is_named_and_the_one_before_is_used(tmp_path: Path, suffix: str, how: str) -> None:
    folder = folder_with(tmp_path, 5, 10)
    path = tmp_path / f"step-000000010.{suffix}"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes({"flip": bytes(data), "cut": bytes(data[: len(data) // 2]), "empty": b""}[how])
    newest = folder.newest()
    assert newest.checkpoint is not None
    assert newest.checkpoint.step == 5
    assert len(newest.damaged) == 1
    assert "step-000000010" in newest.damaged[0]


def test_tensors_that_went_missing_are_damage(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, 5, 10)
    (tmp_path / "step-000000010.safetensors").unlink()
    assert "missing" in folder.newest().damaged[0]


def test_all_damaged_names_each_and_says_how_to_start_over(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, 5, 10)
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(b"gone")
    with pytest.raises(CheckpointDamaged, match=r"step-000000010(.|\n)*step-000000005(.|\n)*remove"):
        folder.newest()


def test_a_pair_that_was_never_finished_is_passed_over_in_silence(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, 5, 10)
    (tmp_path / "step-000000010.json").unlink()
    newest = folder.newest()
    assert newest.checkpoint is not None
    assert newest.checkpoint.step == 5
    assert newest.damaged == ()
