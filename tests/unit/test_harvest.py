"""Harvest, on a real tiny model: what lands in the set, what is refused, what survives."""

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from saeops.activations.reader import ActivationSet, check_model
from saeops.adapters.corpora import open_corpus
from saeops.adapters.models import TransformersModel
from saeops.errors import (
    CorpusMissing,
    CorpusTooSmall,
    DiskFull,
    FolderDamaged,
    ModelMismatch,
    NonFinite,
    ParamsInvalid,
    SiteUnknown,
    StageMissing,
)
from saeops.params import Params
from saeops.refs import Ref, Workspace
from saeops.sealed import verify
from saeops.stages import harvest
from tests.tiny import D_MODEL, RecordingWatch, tiny_params

SITE = "blocks.1.resid_post"


class Watched:
    """The tiny model, which counts its passes, and can be made to fail."""

    def __init__(self, model: TransformersModel, *, spoil: float | None = None) -> None:
        self._model = model
        self._spoil = spoil
        self.passes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def capture(self, ids: Tensor, sites: Sequence[str]) -> dict[str, Tensor]:
        # Widths are asked for by a pass over one token.
        self.passes += ids.numel() > 1
        seen = self._model.capture(ids, sites)
        if self._spoil is not None and self.passes > 3:
            seen[sites[-1]][0, 1] = self._spoil
        return seen


def run(space: Path, texts: Path, model: Any, **sections: Any) -> Ref:
    params = tiny_params(**{**sections, "corpus": {"path": str(texts), **sections.get("corpus", {})}})
    return run_params(params, space, model)


def run_params(params: Params, space: Path, model: Any) -> Ref:
    workspace = Workspace(root=space)
    return harvest.run(params, workspace, model=model, corpus=open_corpus(params.corpus), watch=RecordingWatch())


def test_activations_are_those_of_the_model_at_the_recorded_place(
    tiny_activations: ActivationSet, tiny_model: TransformersModel
) -> None:
    documents = tiny_activations.documents.set_index("document")["tokens"]
    batch = next(tiny_activations.shards(SITE, "eval"))
    for row in range(0, len(batch), 97):
        ids = documents[int(batch.document[row])]
        position = int(batch.position[row])
        assert ids[position] == batch.token[row]
        # A window holds 31 tokens of the document behind the prepended one.
        start = position // 31 * 31
        window = torch.tensor([[0, *ids[start : start + 31]]])
        expected = tiny_model.capture(window, [SITE])[SITE][0, position - start + 1]
        torch.testing.assert_close(batch.activations[row].float(), expected, rtol=2e-3, atol=2e-2)


def test_every_token_asked_for_is_there_once_in_order(tiny_activations: ActivationSet) -> None:
    assert (
        sum(tiny_activations.count(SITE, split) for split in tiny_activations.sealed.summary["tokens"]) == 16_000
    )
    for split in ("train", "eval"):
        places = [
            place
            for batch in tiny_activations.shards(SITE, split)
            for place in zip(batch.document.tolist(), batch.position.tolist(), strict=True)
        ]
        assert places == sorted(set(places))
        assert len(places) == tiny_activations.count(SITE, split)


def test_no_document_is_in_two_splits(tiny_activations: ActivationSet) -> None:
    seen = {
        split: {d for batch in tiny_activations.shards(SITE, split) for d in batch.document.tolist()}
        for split in ("train", "eval", "explain", "score", "panel")
    }
    table = tiny_activations.documents
    for split, documents in seen.items():
        assert documents == set(table.loc[table["split"] == split, "document"])
        assert documents


def test_batches_are_the_shards_in_fp32(tiny_activations: ActivationSet) -> None:
    together = torch.cat([batch.activations for batch in tiny_activations.shards(SITE, "train")])
    batches = list(tiny_activations.batches(SITE, "train", 100))
    assert all(len(batch) <= 100 and batch.activations.dtype == torch.float32 for batch in batches)
    assert torch.equal(torch.cat([batch.activations for batch in batches]), together.float())


def test_windows_are_rebuilt_from_the_documents(tiny_activations: ActivationSet) -> None:
    windows = tiny_activations.windows("eval", limit_documents=3)
    assert len({window.document for window in windows}) == 3
    assert all(window.ids[0] == 0 and len(window.ids) <= 32 for window in windows)
    table = tiny_activations.documents.set_index("document")
    first = windows[0].document
    tokens = [i for window in windows if window.document == first for i in window.ids[1:]]
    assert tokens == table.loc[first, "tokens"].tolist()


def test_the_manifest_says_what_the_set_is(tiny_activations: ActivationSet, tiny_model: TransformersModel) -> None:
    summary = tiny_activations.sealed.summary
    assert tiny_activations.model == tiny_model.identity.to_json()
    assert tiny_activations.width(SITE) == D_MODEL
    quantiles = summary["sites"][SITE]["norm_quantiles"]
    assert 0 < quantiles["q05"] < quantiles["q50"] < quantiles["q95"]
    # The limit is ten times the median of the first batch.
    assert tiny_activations.norm_limit(SITE) == pytest.approx(10 * quantiles["q50"], rel=0.2)
    assert sum(summary["documents"].values()) == summary["documents_total"] == len(tiny_activations.documents)


def test_two_sites_hold_the_same_tokens_in_the_same_order(
    tmp_path: Path, tiny_corpus: Path, tiny_model: TransformersModel
) -> None:
    sites = [SITE, "blocks.0.mlp_hidden", "blocks.2.attn_out"]
    policy = {"max_norm_ratio": 1.2}
    run(tmp_path, tiny_corpus, tiny_model, harvest={"sites": sites, "policy": policy})
    acts = ActivationSet.open(Workspace(root=tmp_path).activations)
    assert acts.width("blocks.0.mlp_hidden") == 64
    assert acts.sealed.summary["dropped"]["outlier_tokens"] > 0
    for split in ("train", "score"):
        for batches in zip(*(acts.shards(site, split) for site in sites), strict=True):
            for name in ("document", "position", "token"):
                assert torch.equal(getattr(batches[0], name), getattr(batches[1], name))
                assert torch.equal(getattr(batches[0], name), getattr(batches[2], name))
    for site in sites:
        norms = torch.cat([batch.activations.norm(dim=-1) for batch in acts.batches(site, "train", 4096)])
        limit = acts.norm_limit(site)
        assert limit is not None
        assert norms.max() <= limit * 1.001


def test_the_set_depends_on_nothing_but_its_inputs(
    tmp_path: Path, tiny_corpus: Path, tiny_model: TransformersModel, tiny_activations: ActivationSet
) -> None:
    moved = shutil.copytree(tiny_corpus, tmp_path / "moved")
    ref = run(tmp_path / "elsewhere", moved, tiny_model)
    assert ref.digest == tiny_activations.sealed.digest
    assert str(tmp_path) not in (ref.path / "manifest.json").read_text()
    verify(ref.path, kind="activations")


def test_nothing_is_done_again_when_nothing_changed(
    tmp_path: Path, tiny_corpus: Path, tiny_model: TransformersModel
) -> None:
    first = run(tmp_path, tiny_corpus, tiny_model)
    model = Watched(tiny_model)
    assert run(tmp_path, tiny_corpus, model) == first
    assert model.passes == 0
    assert run(tmp_path, tiny_corpus, model, seed=1).digest != first.digest
    assert not list((tmp_path / "artifacts" / ".work").iterdir())


# ── a harvest of which a part is new ────────────────────────────────────────


def test_more_tokens_of_the_same_corpus_cost_only_the_windows_that_are_new(
    tmp_path: Path, tiny_corpus: Path, tiny_model: TransformersModel
) -> None:
    less, more = {"tokens": 16_000, "shard_tokens": 1000}, {"tokens": 19_000, "shard_tokens": 1000}
    alone = Watched(tiny_model)
    expected = run(tmp_path / "alone", tiny_corpus, alone, harvest=more)
    run(tmp_path / "grown", tiny_corpus, tiny_model, harvest=less)
    model = Watched(tiny_model)
    ref = run(tmp_path / "grown", tiny_corpus, model, harvest=more)
    assert ref.digest == expected.digest
    verify(ref.path, kind="activations")
    assert model.passes < 0.8 * alone.passes


@pytest.mark.parametrize("changed", [{"context_size": 24}, {"dtype": "float32"}])
def test_a_harvest_in_another_way_takes_nothing_over(
    tmp_path: Path, tiny_corpus: Path, tiny_model: TransformersModel, changed: dict[str, Any]
) -> None:
    alone = Watched(tiny_model)
    expected = run(tmp_path / "alone", tiny_corpus, alone, harvest=changed)
    run(tmp_path / "changed", tiny_corpus, tiny_model)
    model = Watched(tiny_model)
    assert run(tmp_path / "changed", tiny_corpus, model, harvest=changed).digest == expected.digest
    assert model.passes == alone.passes


def test_a_damaged_shard_is_not_taken_over(
    tmp_path: Path, tiny_corpus: Path, tiny_model: TransformersModel
) -> None:
    ref = run(tmp_path, tiny_corpus, tiny_model, harvest={"tokens": 16_000, "shard_tokens": 1000})
    shard = ref.path / SITE / "train-00000.safetensors"
    damaged = shard.read_bytes()
    shard.write_bytes(damaged[:-1] + bytes([damaged[-1] ^ 1]))
    again = run(tmp_path, tiny_corpus, tiny_model, harvest={"tokens": 19_000, "shard_tokens": 1000})
    verify(again.path, kind="activations")
    alone = run(tmp_path / "alone", tiny_corpus, tiny_model, harvest={"tokens": 19_000, "shard_tokens": 1000})
    assert again.digest == alone.digest


# ── what is refused ─────────────────────────────────────────────────────────


def test_a_site_that_does_not_exist_is_refused_before_any_work(
    tmp_path: Path, tiny_corpus: Path, tiny_model: TransformersModel
) -> None:
    site = "blocks.3.resid_post"
    with pytest.raises(SiteUnknown, match="3 blocks, 0 to 2"):
        run(tmp_path, tiny_corpus, tiny_model, harvest={"sites": [site]}, train={"site": site})
    assert not (tmp_path / "artifacts").exists()


def test_k_larger_than_the_dictionary_is_refused_before_any_work(
    tmp_path: Path, tiny_corpus: Path, tiny_model: TransformersModel
) -> None:
    with pytest.raises(ParamsInvalid, match=r"train\.k: must be ≤ d_sae \(200 > 128\)"):
        run(tmp_path, tiny_corpus, tiny_model, train={"k": 200})
    assert not (tmp_path / "artifacts").exists()


def test_params_that_leave_nothing_to_harvest_are_refused() -> None:
    with pytest.raises(ParamsInvalid, match=r"corpus: min_chars 500 must be ≤ max_chars 400"):
        tiny_params(corpus={"min_chars": 500})
    with pytest.raises(ParamsInvalid, match=r"harvest: policy\.skip_positions 32 must be < context_size 32"):
        tiny_params(harvest={"policy": {"skip_positions": 32}})


def test_too_few_documents_are_refused(tmp_path: Path, tiny_corpus: Path, tiny_model: TransformersModel) -> None:
    with pytest.raises(CorpusTooSmall, match="of 12 read"):
        run(tmp_path, tiny_corpus, tiny_model, corpus={"max_documents": 12})
    assert not (tmp_path / "artifacts" / "activations").exists()


def test_files_without_documents_are_refused(tmp_path: Path, tiny_model: TransformersModel) -> None:
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(CorpusMissing, match="no document"):
        run(tmp_path, tmp_path / "empty.jsonl", tiny_model, corpus={"source": "jsonl"})


@pytest.mark.parametrize(
    ("spoil", "said", "fix"),
    [
        (1e30, r"blocks\.1\.resid_post/train-0000\d: 1 tokens overflow in float16", "bfloat16 or float32"),
        (float("nan"), r"blocks\.1\.resid_post/train-0000\d: the model gives NaN", "model.dtype to float32"),
    ],
)
def test_numbers_that_are_none_are_refused_with_site_shard_and_fix(
    tmp_path: Path, tiny_corpus: Path, tiny_model: TransformersModel, spoil: float, said: str, fix: str
) -> None:
    broken = Watched(tiny_model, spoil=spoil)
    with pytest.raises(NonFinite, match=said) as caught:
        run(tmp_path, tiny_corpus, broken, harvest={"policy": {"max_norm_ratio": None}})
    assert fix in caught.value.hint
    assert not (tmp_path / "artifacts" / "activations").exists()


def test_what_overflows_in_float16_fits_in_float32(
    tmp_path: Path, tiny_corpus: Path, tiny_model: TransformersModel
) -> None:
    large = Watched(tiny_model, spoil=1e30)
    choices = {"policy": {"max_norm_ratio": None}, "dtype": "float32"}
    run(tmp_path, tiny_corpus, large, harvest=choices)


def test_activations_of_another_model_are_refused(tiny_activations: ActivationSet) -> None:
    check_model(tiny_activations, tiny_activations.model["digest"])
    with pytest.raises(ModelMismatch, match="folder:tiny-llama"):
        check_model(tiny_activations, "0" * 64)


def test_a_set_that_was_never_harvested_says_which_command_makes_it(tmp_path: Path) -> None:
    with pytest.raises(StageMissing) as caught:
        ActivationSet.open(tmp_path / "activations")
    assert "saeops harvest" in caught.value.hint


def test_a_site_that_was_not_harvested_lists_those_that_were(tiny_activations: ActivationSet) -> None:
    with pytest.raises(SiteUnknown, match="was not harvested") as caught:
        tiny_activations.count("blocks.0.resid_post", "train")
    assert SITE in caught.value.hint


# ── what survives ───────────────────────────────────────────────────────────


def flip(path: Path) -> None:
    """Change one byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_damaged_shard_of_a_finished_set_is_refused_when_it_is_read(
    tmp_path: Path, tiny_corpus: Path, tiny_model: TransformersModel
) -> None:
    folder = run(tmp_path, tiny_corpus, tiny_model).path
    flip(folder / SITE / "train-00001.safetensors")
    acts = ActivationSet.open(folder)
    batches = acts.shards(SITE, "train")
    next(batches)
    with pytest.raises(FolderDamaged, match="train-00001"):
        next(batches)
    with pytest.raises(FolderDamaged, match="train-00001"):
        run(tmp_path, tiny_corpus, tiny_model)


def test_a_full_disk_keeps_what_is_finished(
    tmp_path: Path,
    tiny_corpus: Path,
    tiny_model: TransformersModel,
    tiny_activations: ActivationSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, left = os.fsync, [20]

    def fsync(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    model = Watched(tiny_model)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(DiskFull, match="no room left") as caught:
            run(tmp_path, tiny_corpus, model)
    assert "finished work is kept" in caught.value.hint
    assert not (tmp_path / "artifacts" / "activations").exists()
    spent, model.passes = model.passes, 0
    assert run(tmp_path, tiny_corpus, model).digest == tiny_activations.sealed.digest
    whole = Watched(tiny_model)
    run(tmp_path / "whole", tiny_corpus, whole)
    # The piece that was being written is computed again, the others are not.
    assert whole.passes < spent + model.passes <= whole.passes + 5


def test_a_damaged_shard_in_the_work_folder_is_made_again(
    tmp_path: Path,
    tiny_corpus: Path,
    tiny_model: TransformersModel,
    tiny_activations: ActivationSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(harvest, "publish_folder", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, tiny_corpus, tiny_model)
    (work,) = (tmp_path / "artifacts" / ".work").iterdir()
    flip(work / "set" / SITE / "eval-00001.safetensors")
    (work / "pieces" / "score-00000.json").write_text("{")
    (work / "set" / SITE / ".eval-00000.safetensors.x1y2").write_bytes(b"left by a killed write")
    model = Watched(tiny_model)
    assert run(tmp_path, tiny_corpus, model).digest == tiny_activations.sealed.digest
    assert 0 < model.passes <= 10
