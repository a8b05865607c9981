import json
import shutil
from pathlib import Path

import pytest

from saeops.dictionary.bundle import open_bundle, seal_reviews
from saeops.dictionary.provenance import code_digest
from saeops.digests import dvc_directory_md5
from saeops.errors import FolderDamaged, FormatUnknown, ModelMismatch, StageMissing
from saeops.refs import Workspace
from saeops.sealed import open_sealed, seal
from saeops.stages import bundle as bundle_stage
from tests.bundles import decisions, tiny_bundle, tiny_params, write_parts
from tests.tiny import RecordingWatch


def test_the_same_inputs_give_the_same_digest_on_another_checkout(tmp_path: Path):
    one, two = tiny_bundle(tmp_path / "one"), tiny_bundle(tmp_path / "somewhere" / "else")
    assert one.digest == two.digest
    assert tiny_bundle(tmp_path / "three", seed=1).digest != one.digest


def test_no_file_of_a_bundle_names_this_place_or_a_commit(tmp_path: Path):
    bundle = tiny_bundle(tmp_path / "checkout")
    for file in (p for p in bundle.path.rglob("*") if p.suffix in (".json", ".jsonl")):
        text = file.read_text()
        assert str(tmp_path) not in text
        assert "commit" not in text


def test_provenance_names_what_the_bundle_was_made_from(tmp_path: Path):
    (tmp_path / "requirements.lock").write_text("torch==2\n")
    bundle = tiny_bundle(tmp_path)
    space, provenance = Workspace(root=tmp_path), bundle.provenance
    assert provenance.upstream["sae"] == open_sealed(space.sae, kind="sae").digest
    assert provenance.upstream["activations"] == open_sealed(space.activations, kind="activations").digest
    assert provenance.activations_md5 == dvc_directory_md5(space.activations)
    assert provenance.params == tiny_params().model_dump(mode="json", exclude={"retrain", "serve"})
    assert provenance.model["digest"] == "m" * 64
    assert provenance.lock is not None


def test_the_lock_changes_the_digest(tmp_path: Path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "requirements.lock").write_text("torch==2\n")
    assert tiny_bundle(tmp_path / "a").digest != tiny_bundle(tmp_path / "b").digest


def test_the_code_digest_sees_every_source_and_nothing_else(tmp_path: Path):
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "a.py").write_text("x = 1\n")
    before = code_digest(tmp_path)
    (tmp_path / "room" / "notes.txt").write_text("no source")
    assert code_digest(tmp_path) == before
    (tmp_path / "room" / "a.py").write_text("x = 2\n")
    assert code_digest(tmp_path) != before


def test_a_finished_bundle_is_kept(tmp_path: Path):
    bundle = tiny_bundle(tmp_path)
    before = (bundle.path / "manifest.json").stat().st_mtime_ns
    bundle_stage.run(tiny_params(), Workspace(root=tmp_path), watch=RecordingWatch())
    assert (bundle.path / "manifest.json").stat().st_mtime_ns == before


def test_a_killed_bundle_stage_starts_its_folder_again(tmp_path: Path):
    whole = tiny_bundle(tmp_path / "whole").digest
    space = Workspace(root=tmp_path / "killed")
    write_parts(space, tiny_params())
    bundle_stage.run(tiny_params(), space, watch=RecordingWatch())
    # As after a kill in the middle: an unfinished work folder, and no bundle.
    work = space.root / "artifacts" / ".work"
    shutil.rmtree(work, ignore_errors=True)
    for stale in ("sae", "junk"):
        (space.work("bundle", "x") / stale).mkdir(parents=True)
    shutil.rmtree(space.bundle)
    assert bundle_stage.run(tiny_params(), space, watch=RecordingWatch()).digest == whole


@pytest.mark.parametrize("kind", ["activations", "sae", "diagnostics", "catalog", "labels", "effects"])
def test_a_missing_part_names_the_stage_to_run(tmp_path: Path, kind: str):
    space = Workspace(root=tmp_path)
    write_parts(space, tiny_params())
    shutil.rmtree(getattr(space, kind))
    with pytest.raises(StageMissing, match=bundle_stage.MADE_BY[kind]):
        bundle_stage.run(tiny_params(), space, watch=RecordingWatch())
    assert not space.bundle.exists()


@pytest.mark.parametrize(
    ("part", "key", "stage"),
    [("catalog", "sae", "diagnose"), ("labels", "catalog", "label"), ("sae", "activations", "train")],
)
def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path, part: str, key: str, stage: str):
    space = Workspace(root=tmp_path)
    write_parts(space, tiny_params())
    folder: Path = getattr(space, part)
    inputs = dict(open_sealed(folder, kind=part).inputs) | {key: "0" * 64}
    seal(folder, kind=part, version=1, inputs=inputs, summary={})
    with pytest.raises(ModelMismatch, match=f"another {key}.*\n.*saeops {stage}"):
        bundle_stage.run(tiny_params(), space, watch=RecordingWatch())


def test_parts_made_under_other_params_are_refused(tmp_path: Path):
    space = Workspace(root=tmp_path)
    write_parts(space, tiny_params())
    changed = tiny_params(train={"site": "blocks.1.resid_post", "variant": "topk", "k": 5})
    with pytest.raises(ModelMismatch, match=r"sae was made under other params \(train\)"):
        bundle_stage.run(changed, space, watch=RecordingWatch())


def test_controls_made_under_other_params_or_beside_other_activations_are_refused(tmp_path: Path):
    space = Workspace(root=tmp_path)
    write_parts(space, tiny_params())
    with pytest.raises(ModelMismatch, match=r"controls was made under other params \(controls\)"):
        bundle_stage.run(tiny_params(controls={"seeds": 3}), space, watch=RecordingWatch())
    inputs = dict(open_sealed(space.controls, kind="controls").inputs) | {"activations": "0" * 64}
    seal(space.controls, kind="controls", version=1, inputs=inputs, summary={})
    with pytest.raises(ModelMismatch, match=r"another activations.*\n.*saeops controls"):
        bundle_stage.run(tiny_params(), space, watch=RecordingWatch())


def test_a_damaged_part_is_refused(tmp_path: Path):
    space = Workspace(root=tmp_path)
    write_parts(space, tiny_params())
    path = space.labels / "labels.parquet"
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    with pytest.raises(FolderDamaged, match=r"labels\.parquet"):
        bundle_stage.run(tiny_params(), space, watch=RecordingWatch())


def test_a_bundle_of_a_newer_format_is_refused(tmp_path: Path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    seal(folder, kind="bundle", version=2, inputs={}, summary={})
    with pytest.raises(FormatUnknown, match="format 2, this saeops reads format 1"):
        open_bundle(folder)


# ── reviews ─────────────────────────────────────────────────────────────────


def test_sealed_reviews_make_another_bundle_that_names_the_one_reviewed(tmp_path: Path):
    bundle = tiny_bundle(tmp_path)
    entries = decisions(bundle.digest, [(1, "accept", None), (2, "reject", None)])
    reviewed = seal_reviews(bundle.path, entries, tmp_path / "reviewed")
    assert reviewed.digest != bundle.digest
    assert reviewed.candidate == bundle.digest
    assert reviewed.reviews() == entries
    assert open_bundle(bundle.path).reviews() == []
    assert reviewed.provenance == bundle.provenance


def test_the_same_decisions_give_the_same_reviewed_bundle_and_it_is_kept(tmp_path: Path):
    bundle = tiny_bundle(tmp_path)
    entries = decisions(bundle.digest, [(1, "accept", None)])
    first = seal_reviews(bundle.path, entries, tmp_path / "a")
    again = seal_reviews(bundle.path, entries, tmp_path / "a")
    assert first.digest == again.digest == seal_reviews(bundle.path, entries, tmp_path / "b").digest
    more = decisions(bundle.digest, [(1, "accept", None), (2, "accept", None)])
    assert seal_reviews(bundle.path, more, tmp_path / "a").digest != first.digest


def test_decisions_on_other_bundles_are_left_out(tmp_path: Path):
    bundle = tiny_bundle(tmp_path)
    entries = decisions("f" * 64, [(1, "reject", None)])
    copy = seal_reviews(bundle.path, entries, tmp_path / "copy")
    assert copy.digest == bundle.digest
    assert copy.reviews() == []


def test_a_reviews_file_that_is_no_ledger_is_refused(tmp_path: Path):
    bundle = tiny_bundle(tmp_path)
    (bundle.path / "reviews.jsonl").write_text(json.dumps({"seq": 1}) + "\n")
    with pytest.raises(FolderDamaged, match=r"reviews\.jsonl"):
        bundle.reviews()
