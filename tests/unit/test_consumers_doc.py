"""The page for consumers: its code runs, in order, and it names what there is."""

import re
from pathlib import Path

import pytest
import torch

from saeops.adapters.model_source import digest_of_folder
from saeops.adapters.projection import MemoryProjection
from saeops.adapters.stores import LocalStore
from saeops.monitor.tally import SKIPPED, Collector, Tally
from saeops.stages import promote
from saeops.stages.walk import Registry
from tests.bundles import author, tiny_bundle, verdict_on
from tests.tiny import D_MODEL, save_tiny_model

PAGE = Path(__file__).parents[2] / "docs" / "consumers.md"


@pytest.mark.filterwarnings("ignore:.*generation:UserWarning")
def test_the_code_on_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = save_tiny_model(tmp_path / "model")
    bundle = tiny_bundle(tmp_path / "built", width=D_MODEL, model=digest_of_folder(folder, ""))
    house = Registry(LocalStore(tmp_path / "store"), MemoryProjection(), patience_s=0)
    promote.run(bundle.path, verdict_on(bundle, None), registry=house, author=author("one"))
    monkeypatch.setenv("SAEOPS_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("SAEOPS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    world = {
        "activations": torch.randn(4, D_MODEL),
        "model": AutoModelForCausalLM.from_pretrained(folder),
        "tokenizer": AutoTokenizer.from_pretrained(folder),
    }
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(code, world)
    assert world["dictionary"].digest == bundle.digest
    assert world["newer"] is None
    assert world["codes"].tokens == 4
    assert set(world["firings"]["latent"]) <= {feature.latent for feature in world["features"]}


def test_every_metric_of_a_monitor_is_on_the_page():
    text = PAGE.read_text()
    for family in Collector(Tally([]), "name", "digest").collect():
        name = family.name if family.type == "histogram" else f"{family.name}_total"
        assert f"`{name}`" in text
    assert all(f"`{reason}`" in text for reason in SKIPPED)
