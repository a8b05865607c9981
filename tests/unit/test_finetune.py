"""A new version of the tiny model, made by a short fine-tuning."""

import hashlib
from pathlib import Path

import pytest

from saeops.adapters.finetune import Recipe, finetune, of_one_kind
from saeops.adapters.model_source import resolve_model
from saeops.adapters.models import load_model
from saeops.errors import CorpusTooSmall, FolderInUse
from saeops.params import ModelParams
from saeops.ports import Document
from tests.tiny import RecordingWatch

RECIPE = Recipe(steps=12, batch_windows=8, context_size=24, lr=1e-2)
TEXTS = [
    Document(f"The {n} clocks of tower {n} strike {n % 12} at noon. " * 6, f"clocks/{n}.txt") for n in range(72)
]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture(scope="module")
def made(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    old = resolve_model(ModelParams(ref=str(tiny_model_folder), device="cpu"), Path("unused"))
    return finetune(old, TEXTS, tmp_path_factory.mktemp("new") / "v2", RECIPE, watch=RecordingWatch())


def test_the_new_version_loads_as_another_model_with_the_same_tokenizer(made, tiny_model_folder: Path):
    old = load_model(ModelParams(ref=str(tiny_model_folder), device="cpu"), Path("unused"))
    new = load_model(ModelParams(ref=str(made.path), device="cpu"), Path("unused"))
    assert new.identity.digest != old.identity.digest
    assert new.identity.d_model == old.identity.d_model
    assert new.encode("strike at noon") == old.encode("strike at noon")


def test_it_learnt_what_it_was_shown_and_says_how_much_with_an_interval(made):
    assert made.after.point < made.before.point
    assert made.difference.high < 0
    assert made.difference.n == made.before.n == 9
    assert made.tokens > 12 * 8 * 10


def test_the_same_recipe_gives_the_same_version(made, tiny_model_folder: Path, tmp_path: Path):
    old = resolve_model(ModelParams(ref=str(tiny_model_folder), device="cpu"), Path("unused"))
    again = finetune(old, TEXTS, tmp_path / "again", RECIPE, watch=RecordingWatch())
    weights = "model.safetensors"
    assert (again.path / weights).read_bytes() == (made.path / weights).read_bytes()


def test_a_folder_that_is_there_is_not_written_over(made, tiny_model_folder: Path):
    old = resolve_model(ModelParams(ref=str(tiny_model_folder), device="cpu"), Path("unused"))
    with pytest.raises(FolderInUse, match="is there already"):
        finetune(old, TEXTS, made.path, RECIPE, watch=RecordingWatch())


def test_documents_of_one_kind_that_nobody_has_seen_are_taken_once_each():
    others = [Document("x" * 500, "elsewhere/1.txt"), Document("too short", "clocks/short.txt"), TEXTS[3]]
    found = of_one_kind([*others, *TEXTS], "clocks/", seen={digest(TEXTS[0].text)}, limit=30)
    assert len(found) == 30
    assert {document.source for document in found} <= {document.source for document in TEXTS[1:]}


def test_too_little_of_a_kind_is_refused_with_what_to_do():
    with pytest.raises(CorpusTooSmall, match=r"0 unseen documents have 'towers/'(.|\n)*--kind"):
        of_one_kind(TEXTS, "towers/", seen=set(), limit=30)
