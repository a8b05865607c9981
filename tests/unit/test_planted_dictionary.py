"""Training recovers a dictionary that is known."""

from pathlib import Path

import pytest
import torch

from saeops.sae.variants import (
    BatchTopK,
    Gated,
    JumpReLU,
    Matryoshka,
    ReluL1,
    TargetL0,
    TopK,
    Variant,
)
from saeops.training.checkpoint import CheckpointFolder
from saeops.training.loop import train
from tests.planted import fresh, plant, short_config

DATA = plant(n_features=64, d_model=48, tokens=16_384, active=3)


def recovered(variant: Variant, folder: Path) -> float:
    """Share of planted directions that some decoder row matches with cosine above 0.9."""
    config = short_config(
        tokens=300 * 512,
        batch_size=512,
        lr=1e-2,
        dead_after_tokens=5_000,
        log_every_steps=300,
        checkpoint_every_steps=300,
    )
    state = fresh(variant, DATA, d_sae=128)
    checkpoints = CheckpointFolder(folder, keep=1)
    for _ in train(state, DATA.batches(512), config=config, checkpoints=checkpoints):
        pass
    return matched(state.sae.weights().W_dec_FE)


def matched(W_dec_FD: torch.Tensor) -> float:
    rows_FD = torch.nn.functional.normalize(W_dec_FD, dim=1)
    return float(((DATA.directions @ rows_FD.t()).amax(1) > 0.9).float().mean())


@pytest.mark.parametrize(
    "variant",
    [
        TopK(k=3),
        BatchTopK(k=3),
        JumpReLU(sparsity=TargetL0(target=4), bandwidth=0.2),
        Gated(l1_coefficient=2.0, first_l0=3),
        # The features are all alike, so a prefix that cannot hold them all learns mixtures.
        Matryoshka(k=3, prefixes=(0.5, 1.0)),
        ReluL1(l1_coefficient=2.0),
    ],
    ids=lambda variant: variant.variant,
)
def test_nineteen_in_twenty_planted_features_are_recovered(variant: Variant, tmp_path: Path) -> None:
    assert recovered(variant, tmp_path) >= 0.95


def test_without_training_hardly_any_is_there() -> None:
    """Else the test above would pass by chance."""
    assert matched(fresh(TopK(k=3), DATA, d_sae=128).sae.weights().W_dec_FE) < 0.1
