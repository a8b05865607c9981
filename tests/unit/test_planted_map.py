"""Transcoders of every variant on a planted map: y is a sparse function of x, written along known directions.

# T token, D width of the input, E width of the target, F planted feature
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from saeops.sae.canonical import Sae, SaeMeta
from saeops.sae.folding import fold
from saeops.sae.variants import TopK, Variant
from saeops.training.checkpoint import CheckpointFolder
from saeops.training.loop import train
from saeops.training.pairs import Pair
from saeops.training.state import TrainState, begin, resume
from tests.planted import short_config
from tests.variants import VARIANTS

D, E, F = 32, 24, 64
CPU = torch.device("cpu")


@dataclass(frozen=True)
class PlantedMap:
    """Features read along some directions of x, and written along others of y, which x knows nothing of."""

    write_FE: Tensor
    pair: Pair

    def batches(self, size: int) -> Callable[[int], Iterator[Pair]]:
        def from_step(step: int) -> Iterator[Pair]:
            while True:
                rows = slice(start := step % (len(self.pair) // size) * size, start + size)
                yield Pair(self.pair.x_TD[rows], self.pair.y_TE[rows])
                step += 1

        return from_step


def plant_map(*, tokens: int, shuffled: bool = False) -> PlantedMap:
    """Three of 64 features a token; `shuffled`: x and y of different tokens, so that there is nothing to find."""
    g = torch.Generator().manual_seed(78)
    read_FD = torch.nn.functional.normalize(torch.randn(F, D, generator=g), dim=1)
    write_FE = torch.nn.functional.normalize(torch.randn(F, E, generator=g), dim=1)
    chosen = torch.rand(tokens, F, generator=g).topk(3, dim=1).indices
    f_TF = torch.zeros(tokens, F).scatter(1, chosen, 0.5 + torch.rand(tokens, 3, generator=g))
    x_TD = 5 * f_TF @ read_FD + 3 * torch.randn(D, generator=g)
    y_TE = 0.2 * f_TF @ write_FE + torch.randn(E, generator=g)
    return PlantedMap(write_FE, Pair(x_TD, y_TE[torch.randperm(tokens, generator=g)] if shuffled else y_TE))


def trained(variant: Variant, data: PlantedMap, folder: Path) -> TrainState:
    config = short_config(
        tokens=300 * 512,
        batch_size=512,
        lr=1e-2,
        dead_after_tokens=20_000,
        log_every_steps=300,
        checkpoint_every_steps=300,
    )
    state = begin(variant, data.pair, d_sae=128, seed=0, device=CPU)
    for _ in train(state, data.batches(512), config=config, checkpoints=CheckpointFolder(folder, keep=1)):
        pass
    return state


def canonical(state: TrainState, k: int) -> Sae:
    meta = SaeMeta(
        variant="topk",
        site="blocks.0.resid_post",
        target_site="blocks.1.mlp_out",
        d_model=D,
        d_out=E,
        d_sae=128,
        k=k,
        apply_b_dec_to_input=False,
    )
    return fold(state.sae.weights(), meta, input=state.reading, target=state.normalisation.target)


def explained(sae: Sae, pair: Pair) -> float:
    error = (pair.y_TE - sae.reconstruct(pair.x_TD)).square().sum()
    return 1 - float(error / (pair.y_TE - pair.y_TE.mean(0)).square().sum())


def matched(W_dec: Tensor, data: PlantedMap) -> float:
    """Share of the planted directions that some decoder row matches with cosine above 0.9."""
    rows = torch.nn.functional.normalize(W_dec, dim=1)
    return float(((data.write_FE @ rows.T).amax(1) > 0.9).float().mean())


def test_a_planted_map_is_recovered_and_a_shuffled_one_is_not(tmp_path: Path) -> None:
    data, nothing = plant_map(tokens=16_384), plant_map(tokens=16_384, shuffled=True)
    variant = TopK(k=3)
    sae = canonical(trained(variant, data, tmp_path / "map"), 3)
    null = canonical(trained(variant, nothing, tmp_path / "null"), 3)
    assert matched(sae.W_dec, data) > 0.8
    assert matched(null.W_dec, data) < 0.2
    assert explained(sae, data.pair) > 0.8
    assert explained(null, nothing.pair) < 0.1


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.variant)
def test_every_variant_transcodes_and_goes_on_to_the_same_bits_after_a_kill(
    variant: Variant, tmp_path: Path
) -> None:
    data, config = plant_map(tokens=1024), short_config()
    ends = []
    for kill_after, name in ((None, "whole"), (13, "killed")):
        folder = CheckpointFolder(tmp_path / name, keep=3)
        state = begin(variant, data.pair, d_sae=48, seed=0, device=CPU)
        assert state.normalisation.transcodes
        for done in train(state, data.batches(64), config=config, checkpoints=folder):
            if done.step == kill_after:
                break
        if kill_after is not None:
            newest = folder.newest().checkpoint
            assert newest is not None
            assert newest.step == 12
            state = resume(variant, newest, device=CPU)
            for _ in train(state, data.batches(64), config=config, checkpoints=folder):
                pass
        ends.append(state)
    whole, killed = (end.checkpoint() for end in ends)
    assert whole.tensors.keys() == killed.tensors.keys()
    assert all(torch.equal(tensor, killed.tensors[name]) for name, tensor in whole.tensors.items())
    assert whole.facts == killed.facts
    assert tuple(ends[0].sae.weights().W_dec_FE.shape) == (48, E)
    first, last = ends[0].curve[0], ends[0].curve[-1]
    assert last.mse < first.mse, "it learns"
