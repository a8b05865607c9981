"""The same step on a GPU as on the CPU, for every variant. Needs a CUDA device: `pytest -m gpu`."""

from pathlib import Path
from typing import get_args

import pytest
import torch

from saeops.sae.variants import Variant
from saeops.training.checkpoint import CheckpointFolder
from saeops.training.config import TrainingConfig
from saeops.training.loop import step_on
from saeops.training.pairs import Pair
from saeops.training.schedule import Schedule
from saeops.training.state import TrainState, begin
from tests.planted import plant, short_config

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]
DATA = plant(n_features=40, d_model=32, tokens=2048, active=3)


def trained(variant: Variant, device: str, precision: str, tmp_path: Path) -> TrainState:
    config: TrainingConfig = short_config(precision=precision, checkpoint_every_steps=100)
    state = begin(variant, Pair.same(DATA.x), d_sae=128, seed=0, device=torch.device(device))
    checkpoints = CheckpointFolder(tmp_path, keep=1)
    schedule = Schedule.of(config)
    for number in range(10):
        raw = Pair.same(DATA.x[64 * number : 64 * (number + 1)])
        pair = state.normalisation.apply(raw.to(state.device))
        step_on(state, pair, config=config, schedule=schedule, checkpoints=checkpoints)
    return state


@pytest.mark.parametrize("variant", get_args(Variant), ids=lambda cls: cls.model_fields["variant"].default)
def test_ten_steps_on_a_gpu_end_where_ten_steps_on_the_cpu_do(variant: type, tmp_path: Path) -> None:
    cpu, gpu = (trained(variant(), device, "float32", tmp_path) for device in ("cpu", "cuda"))
    for (name, one), (_, other) in zip(cpu.sae.named_parameters(), gpu.sae.named_parameters(), strict=True):
        torch.testing.assert_close(
            one, other.cpu(), rtol=1e-2, atol=1e-3, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("variant", get_args(Variant), ids=lambda cls: cls.model_fields["variant"].default)
def test_bfloat16_products_leave_the_masters_in_fp32_on_a_gpu(variant: type, tmp_path: Path) -> None:
    state = trained(variant(), "cuda", "bfloat16", tmp_path)
    assert {parameter.dtype for parameter in state.sae.parameters()} == {torch.float32}
    assert all(bool(parameter.isfinite().all()) for parameter in state.sae.parameters())
