"""Sites are where the model says they are, in every family."""

import pytest
import torch
from torch import nn

from saeops.activations.sites import find_structure, resolve
from saeops.adapters.model_source import ModelFolder
from saeops.adapters.models import TransformersModel
from saeops.errors import SiteUnknown
from tests.tiny import D_MODEL, FAMILIES, LAYERS, Family, save_tiny_model, tiny_model

IDS = torch.tensor([[0, 40, 41, 42, 43, 44, 45, 46], [0, 90, 91, 92, 93, 94, 95, 96]])


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TransformersModel:
    family: Family = request.param
    folder = save_tiny_model(tmp_path_factory.mktemp(family) / family, family)
    return TransformersModel(ModelFolder(folder, family, "digest"), device="cpu")


def test_resid_post_is_the_hidden_state_that_transformers_reports(model: TransformersModel) -> None:
    states = model._model(IDS, output_hidden_states=True).hidden_states
    # The last hidden state that transformers reports is behind the final norm.
    for block in range(LAYERS - 1):
        site = f"blocks.{block}.resid_post"
        torch.testing.assert_close(model.capture(IDS, [site])[site], states[block + 1])


def test_attention_and_mlp_outputs_add_up_to_the_residual_stream(model: TransformersModel) -> None:
    sites = [f"blocks.1.{kind}" for kind in ("attn_out", "mlp_out", "resid_post")]
    seen = model.capture(IDS, ["blocks.0.resid_post", *sites])
    total = seen["blocks.0.resid_post"] + seen["blocks.1.attn_out"] + seen["blocks.1.mlp_out"]
    torch.testing.assert_close(total, seen["blocks.1.resid_post"], rtol=1e-4, atol=1e-4)
    assert seen["blocks.1.attn_out"].norm() > 0.01 * seen["blocks.1.resid_post"].norm()
    assert seen["blocks.1.mlp_out"].norm() > 0.01 * seen["blocks.1.resid_post"].norm()


def test_mlp_hidden_is_what_the_down_projection_reads(model: TransformersModel) -> None:
    block = model._structure.blocks[1]
    down = resolve(model._structure, "blocks.1.mlp_hidden").module
    hidden = model.capture(IDS, ["blocks.1.mlp_hidden"])["blocks.1.mlp_hidden"]
    assert any(down is module for module in block.modules())
    assert model.width("blocks.1.mlp_hidden") == hidden.shape[-1] > D_MODEL
    outputs: list[torch.Tensor] = []
    handle = down.register_forward_hook(lambda *call: outputs.append(call[2]))
    model.logits(IDS)
    handle.remove()
    torch.testing.assert_close(down(hidden), outputs[0])


def test_the_pass_stops_after_the_last_site(model: TransformersModel) -> None:
    called: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: called.append(name))
        for name, module in model._model.named_modules()
    ]
    model.capture(IDS, ["blocks.0.attn_out", "blocks.1.attn_out"])
    for handle in handles:
        handle.remove()
    path = model._structure.path
    assert any(name.startswith(f"{path}.1.") for name in called)
    assert not any(name.startswith(f"{path}.2") for name in called)
    assert not any(".mlp" in name for name in called if name.startswith(f"{path}.1"))
    assert "lm_head" not in called


def test_capture_leaves_no_hooks_behind(model: TransformersModel) -> None:
    def hooks() -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model._model.modules())

    before = hooks()
    model.capture(IDS, ["blocks.0.resid_post", "blocks.1.mlp_hidden"])
    assert hooks() == before


def test_an_edit_replaces_the_site_for_everything_after_it(model: TransformersModel) -> None:
    clean = model.logits(IDS)
    for kind in ("resid_post", "attn_out", "mlp_out", "mlp_hidden"):
        site = f"blocks.1.{kind}"
        torch.testing.assert_close(model.logits(IDS, {site: lambda x: x}), clean)
        assert (model.logits(IDS, {site: torch.zeros_like}) - clean).abs().max() > 1e-3


def test_logits_are_those_of_transformers(model: TransformersModel) -> None:
    torch.testing.assert_close(model.logits(IDS), model._model(IDS).logits)


def test_unembed_is_how_the_final_norm_and_head_read_a_direction(model: TransformersModel) -> None:
    norm, head = model._structure.final_norm, model._model.get_output_embeddings()
    # Gains that differ between coordinates, so that leaving them out would show.
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, D_MODEL))
    gain = norm.weight + 1 if "Gemma" in type(norm).__name__ else norm.weight
    directions = torch.randn(5, D_MODEL, generator=torch.Generator().manual_seed(0))
    expected = directions * gain @ head.weight.T
    torch.testing.assert_close(model.unembed(directions), expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        norm.weight.copy_(torch.zeros(D_MODEL) if "Gemma" in type(norm).__name__ else torch.ones(D_MODEL))


@pytest.mark.parametrize(
    ("site", "said"),
    [
        ("blocks.9.resid_post", "3 blocks, 0 to 2"),
        ("blocks.x.resid_post", "not a site"),
        ("layers.1", "not a site"),
    ],
)
def test_a_site_that_is_not_there_is_refused_with_what_is(model: TransformersModel, site: str, said: str) -> None:
    with pytest.raises(SiteUnknown, match=said) as caught:
        model.width(site)
    assert "resid_post" in caught.value.hint


def test_a_model_of_another_structure_is_refused_with_its_modules() -> None:
    with pytest.raises(SiteUnknown, match=r"encoder \(Linear\)"):
        find_structure(nn.ModuleDict({"encoder": nn.Linear(2, 2), "head": nn.Linear(2, 2)}))


def test_a_block_without_a_known_down_projection_lists_its_modules() -> None:
    model = tiny_model("llama")
    mlp = model.model.layers[0].mlp
    mlp.add_module("odd_projection", mlp.down_proj)
    del mlp.down_proj
    with pytest.raises(SiteUnknown, match=r"mlp\.odd_projection"):
        resolve(find_structure(model), "blocks.0.mlp_hidden")
