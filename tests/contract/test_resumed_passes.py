"""Passes that begin at a site's block give what whole passes give, to the bit, in every family."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saeops.activations.sites import KINDS
from saeops.adapters.model_source import ModelFolder
from saeops.adapters.models import TransformersModel
from saeops.errors import SiteUnknown
from tests.tiny import FAMILIES, LAYERS, Family, save_tiny_model

IDS = torch.tensor([[0, 40, 41, 42, 43, 44, 45, 46], [0, 90, 91, 92, 93, 94, 0, 0]])
SITES = [f"blocks.{block}.{kind}" for block in range(LAYERS) for kind in KINDS]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TransformersModel:
    family: Family = request.param
    folder = save_tiny_model(tmp_path_factory.mktemp(family) / family, family)
    return TransformersModel(ModelFolder(folder, family, "digest"), device="cpu")


def halved(x: Tensor) -> Tensor:
    return x / 2


def overwritten(x: Tensor) -> Tensor:
    """An edit that writes into what it is given."""
    return x.mul_(0.5)


def runs(model: TransformersModel) -> list[int]:
    """Counts how often each block's attention runs."""
    counts = [0] * LAYERS
    for number, block in enumerate(model._structure.blocks):
        attention = next(child for name, child in block.named_children() if "att" in name)

        def count(*_: Any, number: int = number) -> None:
            counts[number] += 1

        attention.register_forward_hook(count)
    return counts


@pytest.mark.parametrize("site", SITES)
def test_edited_and_clean_passes_from_a_site_are_whole_passes_to_the_bit(
    model: TransformersModel, site: str
) -> None:
    passes = model.from_site(IDS, [site])
    for edit in (halved, torch.zeros_like, overwritten, halved):
        assert torch.equal(passes.logits({site: edit}), model.logits(IDS, {site: edit}))
    assert torch.equal(passes.logits(), model.logits(IDS))
    at = torch.tensor([7, 5])
    assert torch.equal(passes.logits({site: halved}, at=at), model.logits(IDS, {site: halved}, at=at))


@pytest.mark.parametrize(("first", "second"), pairwise(SITES[4:]))
def test_edits_at_two_sites_begin_at_the_earlier_block(model: TransformersModel, first: str, second: str) -> None:
    edits = {first: halved, second: torch.zeros_like}
    passes = model.from_site(IDS, [second, first])
    assert torch.equal(passes.logits(edits), model.logits(IDS, edits))


def test_another_models_passes_and_other_windows_are_not_mixed_up(model: TransformersModel) -> None:
    site = "blocks.2.resid_post"
    one, other = model.from_site(IDS, [site]), model.from_site(IDS[:1] + 1, [site])
    for _ in range(2):
        assert torch.equal(one.logits({site: halved}), model.logits(IDS, {site: halved}))
        assert torch.equal(other.logits({site: halved}), model.logits(IDS[:1] + 1, {site: halved}))


def test_what_comes_before_the_site_runs_once(model: TransformersModel) -> None:
    model.from_site(IDS, ["blocks.2.mlp_out"]).logits()
    counts = runs(model)
    passes = model.from_site(IDS, ["blocks.2.mlp_out"])
    assert counts == [0, 0, 0]
    for _ in range(5):
        passes.logits({"blocks.2.mlp_out": halved})
    assert counts == [1, 1, 5]


def test_nothing_is_left_behind_even_after_an_edit_that_fails(model: TransformersModel) -> None:
    def state() -> list[Any]:
        hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model._model.modules()]
        return [*hooks, *("forward" in vars(m) for m in model._model.modules())]

    def failing(_: Tensor) -> Tensor:
        raise RuntimeError("no edit")

    before, clean = state(), model.logits(IDS)
    passes = model.from_site(IDS, ["blocks.1.attn_out"])
    with pytest.raises(RuntimeError, match="no edit"):
        passes.logits({"blocks.1.attn_out": failing})
    assert state() == before
    assert torch.equal(model.logits(IDS), clean)


def test_a_model_whose_blocks_read_more_than_their_input_runs_whole_passes(model: TransformersModel) -> None:
    """As where a block reads the first block's keys: skipping that block would change what it computes."""
    carried: dict[str, Tensor] = {}

    def keep(_module: nn.Module, _args: Any, output: Any) -> None:
        carried["mlp"] = output[0] if isinstance(output, tuple) else output

    def add(_module: nn.Module, args: Any) -> Any:
        return (args[0] + carried["mlp"], *args[1:])

    first, last = model._structure.blocks[0], model._structure.blocks[2]
    inner = next(child for name, child in first.named_children() if "mlp" in name)
    handles = [inner.register_forward_hook(keep), last.register_forward_pre_hook(add)]
    fresh = TransformersModel.__new__(TransformersModel)
    fresh.__dict__.update(model.__dict__, _begins_at={})
    site = "blocks.1.resid_post"
    passes, others = fresh.from_site(IDS, [site]), fresh.from_site(IDS + 1, [site])
    edited = [passes.logits({site: halved}), others.logits(), passes.logits({site: halved})][::2]
    whole = fresh.logits(IDS, {site: halved})
    for handle in handles:
        handle.remove()
    assert all(torch.equal(one, whole) for one in edited)
    assert not torch.equal(whole, model.logits(IDS, {site: halved}))


def test_a_site_that_is_not_there_is_refused_at_once(model: TransformersModel) -> None:
    with pytest.raises(SiteUnknown, match="3 blocks"):
        model.from_site(IDS, ["blocks.9.resid_post"])
