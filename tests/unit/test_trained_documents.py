"""What trained an SAE is recorded with it, and never evaluates it."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saeops.activations.reader import ActivationSet
from saeops.adapters.corpora import open_corpus
from saeops.adapters.models import TransformersModel
from saeops.digests import digest_bytes
from saeops.errors import DocumentsShared
from saeops.refs import Workspace
from saeops.sealed import open_sealed, seal
from saeops.stages import controls, diagnose, harvest, train
from saeops.training.documents import (
    DOCUMENTS,
    TrainedDocumentTable,
    check_unseen,
    read_trained,
    trained_documents,
)
from tests.killing import Killed, KillingWatch
from tests.tiny import RecordingWatch, tiny_params

SPLITS = ["train", "eval", "explain", "score", "panel"]


def table(splits: dict[int, str]) -> pd.DataFrame:
    """Documents by number, each of a text of its own."""
    return pd.DataFrame(
        {
            "document": np.arange(len(splits), dtype=np.int32),
            "source": [f"file-{number}.txt" for number in splits],
            "split": list(splits.values()),
            "sha256": [digest_bytes(str(number).encode()) for number in splits],
        }
    )


splits = st.dictionaries(st.integers(0, 30), st.sampled_from(SPLITS), min_size=1)


@given(splits, splits)
def test_held_out_documents_that_trained_are_counted_and_one_is_named(
    before: dict[int, str], now: dict[int, str]
) -> None:
    trained = trained_documents(table(before))
    shared = [n for n, split in now.items() if split != "train" and before.get(n) == "train"]
    held_out = [n for n, split in now.items() if split != "train"]
    if not shared:
        check_unseen(trained, table(now), place=Path("somewhere"))
        return
    with pytest.raises(DocumentsShared) as caught:
        check_unseen(trained, table(now), place=Path("somewhere"))
    assert caught.value.message.startswith(f"{len(shared)} of {len(held_out)} held-out documents in somewhere")
    assert f"file-{shared[0]}.txt ({now[shared[0]]}," in caught.value.message
    assert "saeops train" in caught.value.hint


@given(splits)
def test_the_record_is_the_train_split_whatever_the_order(before: dict[int, str]) -> None:
    trained = trained_documents(table(before))
    TrainedDocumentTable.validate(trained)
    assert len(trained) == sum(split == "train" for split in before.values())
    backwards = table(dict(reversed(before.items())))
    assert trained_documents(backwards)["sha256"].tolist() == trained["sha256"].tolist()


# ── through the stages ──────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_activations: ActivationSet) -> Workspace:
    """A workspace with a shortly trained SAE and no controls."""
    space = Workspace(root=tmp_path_factory.mktemp("trained"))
    shutil.copytree(tiny_activations.sealed.path, space.activations)
    train.run(tiny_params(train={"tokens": 512}), space, watch=RecordingWatch())
    return space


def test_training_records_the_documents_of_its_train_split(trained: Workspace) -> None:
    record = read_trained(trained.sae)
    assert record is not None
    documents = ActivationSet.open(trained.activations).documents
    expected = documents.loc[documents["split"] == "train", "sha256"].str[:32]
    assert record["sha256"].tolist() == sorted(expected)
    assert open_sealed(trained.sae, kind="sae").version == train.VERSION == 2


def diagnosed(space: Workspace, model: TransformersModel) -> KillingWatch:
    """Diagnose until something is measured, and give what was said before."""
    params = tiny_params(train={"tokens": 512}, controls={"random_model_tokens": 0, "seeds": 0})

    def nobody() -> TransformersModel:
        raise AssertionError("no control is wanted")

    controls.run(params, space, random_model=nobody, watch=RecordingWatch())
    watch = KillingWatch(1)
    with pytest.raises(Killed):
        diagnose.run(params, space, model=model, random_model=nobody, watch=watch)
    return watch


def test_activations_split_anew_under_an_sae_are_refused(
    trained: Workspace, tmp_path: Path, tiny_model: TransformersModel, tiny_corpus: Path
) -> None:
    space = Workspace(root=tmp_path)
    shutil.copytree(trained.sae, space.sae)
    other = tiny_params(corpus={"path": str(tiny_corpus)}).model_copy(update={"seed": 7})
    corpus = open_corpus(other.corpus)
    harvest.run(other, space, model=tiny_model, corpus=corpus, watch=RecordingWatch())
    with pytest.raises(DocumentsShared, match=r"\d+ of \d+ held-out documents"):
        diagnosed(space, tiny_model)
    assert not space.diagnostics.exists()


def test_an_sae_without_a_record_is_measured_and_that_is_said(
    trained: Workspace, tmp_path: Path, tiny_model: TransformersModel
) -> None:
    space = Workspace(root=tmp_path)
    shutil.copytree(trained.activations, space.activations)
    shutil.copytree(trained.sae, space.sae)
    sealed = open_sealed(space.sae, kind="sae")
    (space.sae / DOCUMENTS).unlink()
    seal(space.sae, kind="sae", version=1, inputs=sealed.inputs, summary=sealed.summary)
    assert any("does not record its documents" in line for line in diagnosed(space, tiny_model).said)
    assert not any("does not record" in line for line in diagnosed(trained, tiny_model).said)
