"""Killed after any step and resumed, a run ends with the bits of the unbroken one."""

import tempfile
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saeops.sae.variants import TopK, Variant
from saeops.training.checkpoint import Checkpoint, CheckpointFolder
from saeops.training.loop import train
from saeops.training.state import TrainState, resume
from tests.planted import CPU, fresh, plant, short_config
from tests.variants import VARIANTS

DATA = plant(n_features=20, d_model=16, tokens=640, active=3)
CONFIG = short_config(dead_after_tokens=64)


def run_until(state: TrainState, folder: CheckpointFolder, *, kill_after: int | None = None) -> Checkpoint:
    for done in train(state, DATA.batches(CONFIG.batch_size), config=CONFIG, checkpoints=folder):
        if done.step == kill_after:
            break
    return state.checkpoint()


def begin_or_resume(variant: Variant, folder: CheckpointFolder) -> TrainState:
    newest = folder.newest().checkpoint
    return fresh(variant, DATA, d_sae=160) if newest is None else resume(variant, newest, device=CPU)


@cache
def unbroken(variant: Variant) -> Checkpoint:
    with tempfile.TemporaryDirectory() as path:
        return run_until(fresh(variant, DATA, d_sae=160), CheckpointFolder(Path(path), keep=2))


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.variant)
@settings(max_examples=12)
@given(kills=st.lists(st.integers(1, 30), min_size=1, max_size=3))
def test_a_run_killed_at_any_steps_ends_with_the_same_bits(variant: Variant, kills: list[int]) -> None:
    with tempfile.TemporaryDirectory() as path:
        folder = CheckpointFolder(Path(path), keep=2)
        for kill_after in kills:
            run_until(begin_or_resume(variant, folder), folder, kill_after=kill_after)
        broken = run_until(begin_or_resume(variant, folder), folder)
    whole = unbroken(variant)
    assert broken.step == whole.step == 30
    assert broken.facts == whole.facts
    assert broken.tensors.keys() == whole.tensors.keys()
    for name, tensor in whole.tensors.items():
        assert torch.equal(broken.tensors[name], tensor), name


def test_the_unbroken_run_has_dead_latents_for_auxk_to_work_on() -> None:
    """Else the property above would say nothing about AuxK's state."""
    assert any(point["aux_loss"] > 0 for point in unbroken(TopK(k=3)).facts["curve"])
