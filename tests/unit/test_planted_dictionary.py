"""Training recovers a dictionary that is known."""

from pathlib import Path

import pytest
import torch

from saeops.sae.variants import ReluL1, TopK, Variant
from saeops.training.checkpoint import CheckpointFolder
from saeops.training.loop import train
from tests.planted import fresh, plant, short_config

DATA = plant(n_features=64, d_model=32, tokens=16_384, active=3)


def recovered(variant: Variant, folder: Path, *, lr: float) -> float:
    """Share of planted directions that some decoder row matches with cosine above 0.9."""
    config = short_config(
        tokens=400 * 512,
        batch_size=512,
        lr=lr,
        dead_after_tokens=20_000,
        log_every_steps=400,
        checkpoint_every_steps=400,
    )
    state = fresh(variant, DATA, d_sae=128)
    checkpoints = CheckpointFolder(folder, keep=1)
    for _ in train(state, DATA.batches(512), config=config, checkpoints=checkpoints):
        pass
    rows_FD = torch.nn.functional.normalize(state.sae.weights().W_dec_FD, dim=1)
    return float(((DATA.directions @ rows_FD.t()).amax(1) > 0.9).float().mean())


@pytest.mark.parametrize(
    ("variant", "lr"),
    [(TopK(k=3), 3e-3), (ReluL1(l1_coefficient=1.0), 3e-3)],
    ids=lambda value: getattr(value, "variant", None),
)
def test_nine_in_ten_planted_features_are_recovered(variant: Variant, lr: float, tmp_path: Path) -> None:
    assert recovered(variant, tmp_path, lr=lr) >= 0.9


def test_without_training_hardly_any_is_there() -> None:
    """Else the test above would pass by chance."""
    rows_FD = fresh(TopK(k=3), DATA, d_sae=128).sae.weights().W_dec_FD
    assert float(((DATA.directions @ rows_FD.t()).amax(1) > 0.9).float().mean()) < 0.1
