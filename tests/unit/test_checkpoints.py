"""Checkpoints: the newest whole one is found, damage is named, old ones go."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saeops.digests import digest_json
from saeops.errors import CheckpointDamaged, CheckpointMismatch, FormatUnknown
from saeops.training.checkpoint import Checkpoint, CheckpointFolder


def at(step: int) -> Checkpoint:
    return Checkpoint(
        step, {"w": torch.full((4,), float(step)), "n": torch.tensor(step)}, {"scale": 0.1, "curve": []}
    )


RUN = {"seed": 0, "train": {"variant": "topk", "k": 32, "lr": 0.002}}


def folder_with(path: Path, *steps: int, keep: int = 3) -> CheckpointFolder:
    folder = CheckpointFolder(path, keep, RUN)
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


def damaged(data: bytes, how: str, where: float, bit: int) -> bytes:
    place = int(where * len(data))
    if how == "cut":
        return data[:place]
    return data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :]


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
@pytest.mark.parametrize("how", ["flip", "cut"])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_damaged_newest_is_named_and_the_one_before_is_used(
    suffix: str, how: str, where: float, bit: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = folder_with(Path(name), 5, 10)
        path = Path(name) / f"step-000000010.{suffix}"
        before = path.read_bytes()
        path.write_bytes(damaged(before, how, where, bit))
        if suffix == "json" and same_json(before, path.read_bytes()):
            return
        newest = folder.newest()
    assert newest.checkpoint is not None
    assert newest.checkpoint.step == 5
    assert torch.equal(newest.checkpoint.tensors["w"], at(5).tensors["w"])
    assert len(newest.damaged) == 1
    assert f"step-000000010.{suffix}" in newest.damaged[0]


def same_json(before: bytes, after: bytes) -> bool:
    """Whether the bytes differ and the meaning does not, as with a tab for a space, or 1E5 for 1e5."""
    try:
        return bool(json.loads(before) == json.loads(after))
    except ValueError:
        return False


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


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            {"train": {"variant": "batch_topk", "k": 32, "lr": 0.002}},
            r"train\.variant is 'topk' there and 'batch_topk' here",
        ),
        ({"train": {"variant": "topk", "k": 64, "lr": 0.002}}, r"train\.k is 32 there and 64 here"),
        ({"seed": 1}, r"seed is 0 there and 1 here"),
        ({"activations": "abc"}, r"activations is None there and 'abc' here"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_with_every_difference(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    folder_with(tmp_path, 5)
    with pytest.raises(CheckpointMismatch, match=rf"step-000000005(.|\n)*{named}(.|\n)*remove"):
        CheckpointFolder(tmp_path, 3, RUN | change).newest()


def test_a_checkpoint_in_another_format_is_refused_by_its_version(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, 5)
    path = tmp_path / "step-000000005.json"
    body = json.loads(path.read_bytes())
    del body["digest"]
    body["version"] = 1
    path.write_text(json.dumps(body | {"digest": digest_json(body)}))
    with pytest.raises(FormatUnknown, match="version 1, this saeops reads version 3"):
        folder.newest()


def test_what_a_kill_left_half_written_goes_with_the_next_checkpoint(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, 5)
    (tmp_path / ".step-000000006.safetensors.x1y2").write_bytes(b"half")
    folder.write(at(7))
    assert not list(tmp_path.glob(".step-*"))
