"""Importing in the place of a trained SAE, exporting, and the verbs for both."""

import json
import shutil
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from saeops.activations.reader import ActivationSet
from saeops.adapters.models import TransformersModel
from saeops.adapters.projection import MemoryProjection
from saeops.adapters.stores import LocalStore
from saeops.cli import main
from saeops.errors import ForeignFormat, ModelMismatch, SiteUnknown, UsageError
from saeops.metrics import read_metrics
from saeops.params import Params
from saeops.refs import Ref, Workspace
from saeops.sae.canonical import Sae, SaeMeta
from saeops.sae.formats.names import Format
from saeops.sealed import open_sealed, seal, verify
from saeops.services import Services
from saeops.settings import Settings
from saeops.stages import foreign, promote, train
from saeops.stages.records import read_state
from saeops.stages.walk import Registry
from saeops.training.curve import Point
from tests.bundles import NAME, author, tiny_bundle, verdict_on
from tests.diagnosing import without_controls
from tests.foreign import (
    draw,
    gemma_arrays,
    gemma_folder,
    saelens_config,
    saelens_folder,
    saelens_tensors,
    sparsify_config,
    sparsify_folder,
    sparsify_tensors,
)
from tests.tiny import RecordingWatch, tiny_params

SITE = "blocks.1.resid_post"


@dataclass(frozen=True)
class Said:
    """What a verb said, and how it ended."""

    code: object
    out: str
    err: str


@pytest.fixture(scope="module")
def params(tiny_corpus: Path) -> Params:
    return tiny_params(corpus={"path": str(tiny_corpus)})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_activations: ActivationSet) -> Workspace:
    """A workspace with activations and an SAE of random directions, sealed as training seals it."""
    space = Workspace(root=tmp_path_factory.mktemp("trained"))
    shutil.copytree(tiny_activations.sealed.path, space.activations)
    acts = tiny_activations
    rows = torch.nn.functional.normalize(draw(1, 128, 32), dim=1)
    x_TD = torch.cat([batch.activations for batch in acts.batches(SITE, "train", 512)])
    meta = SaeMeta(
        variant="topk",
        site=SITE,
        d_model=32,
        d_sae=128,
        k=4,
        apply_b_dec_to_input=False,
        model=acts.model,
        policy=acts.policy,
        norm_limit=acts.norm_limit(SITE),
    )
    Sae(rows.t().contiguous(), -(x_TD.mean(0) @ rows.t()), rows, x_TD.mean(0), None, meta).save(space.sae)
    summary = {"variant": "topk", "site": SITE, "d_sae": 128}
    seal(space.sae, kind=train.KIND, version=train.VERSION, inputs={}, summary=summary)
    return space


@pytest.fixture
def harvested(tmp_path: Path, tiny_activations: ActivationSet) -> Workspace:
    space = Workspace(root=tmp_path / "checkout")
    shutil.copytree(tiny_activations.sealed.path, space.activations)
    return space


def bring(folder: Path, space: Workspace, watch: RecordingWatch, **options: object) -> Ref:
    options = {"format": Format.SAELENS, **options}
    return foreign.import_sae(folder, space, watch=watch, **options)  # type: ignore[arg-type]


def test_diagnose_goes_on_from_an_import_and_measures_what_it_measured_on_the_original(
    trained: Workspace,
    harvested: Workspace,
    tiny_model: TransformersModel,
    params: Params,
    watch: RecordingWatch,
) -> None:
    # By way of sparsify, where b_dec moves onto the input: other weights, the same SAE.
    made = foreign.export_sae(Sae.load(trained.sae), harvested.root / "out", format=Format.SPARSIFY, force=False)
    ref = bring(made.path, harvested, watch, format=Format.SPARSIFY)
    assert verify(harvested.sae, kind="sae").digest == ref.digest
    for space in (trained, harvested):
        without_controls(params, space, tiny_model, watch)
    ours, theirs = (read_metrics(space.diagnostics / "metrics.json") for space in (trained, harvested))
    for name in ("explained_variance", "l0", "dead_fraction", "delta_ce_nats"):
        assert theirs[name].point == pytest.approx(ours[name].point, abs=1e-4), name


def test_an_import_is_bound_to_the_harvested_model_and_has_an_empty_curve(
    tmp_path: Path,
    tiny_activations: ActivationSet,
    trained: Workspace,
    harvested: Workspace,
    watch: RecordingWatch,
) -> None:
    made = foreign.export_sae(Sae.load(trained.sae), tmp_path / "out", format=Format.SAELENS, force=False)
    bring(made.path, harvested, watch)
    meta = Sae.load(harvested.sae).meta
    assert (meta.model, meta.policy) == (tiny_activations.model, tiny_activations.policy)
    assert meta.norm_limit == tiny_activations.norm_limit(SITE)
    assert meta.variant == "saelens:topk"
    curve = pd.read_parquet(harvested.sae / train.CURVE)
    assert len(curve) == 0
    assert list(curve.columns) == [field.name for field in fields(Point)]


def test_the_same_files_give_the_same_bytes_and_change_nothing_twice(
    tmp_path: Path, harvested: Workspace, watch: RecordingWatch
) -> None:
    folder = saelens_folder(tmp_path / "theirs", saelens_config(), saelens_tensors())
    shutil.rmtree(harvested.activations)
    first = bring(folder, harvested, watch)
    stamp = (harvested.sae / "manifest.json").stat().st_mtime_ns
    assert bring(folder, harvested, watch) == first
    assert (harvested.sae / "manifest.json").stat().st_mtime_ns == stamp
    elsewhere = Workspace(root=tmp_path / "elsewhere")
    assert bring(folder, elsewhere, watch).digest == first.digest
    assert not list((harvested.root / "artifacts" / ".work").iterdir())


def test_a_trained_sae_is_replaced_only_by_force_and_named_both_times(
    tmp_path: Path, trained: Workspace, watch: RecordingWatch
) -> None:
    space = Workspace(root=tmp_path / "copy")
    shutil.copytree(trained.sae, space.sae)
    before = open_sealed(space.sae, kind="sae").digest
    folder = saelens_folder(tmp_path / "theirs", saelens_config(), saelens_tensors())
    with pytest.raises(UsageError, match=rf"holds topk at {SITE}, 128 latents, {before[:12]}"):
        bring(folder, space, watch)
    assert open_sealed(space.sae, kind="sae").digest == before
    bring(folder, space, watch, force=True)
    assert any(f"replaces topk at {SITE}" in line for line in watch.said)
    assert Sae.load(space.sae).meta.variant == "saelens:standard"


def test_a_folder_that_is_no_sae_is_not_replaced_either(tmp_path: Path, watch: RecordingWatch) -> None:
    space = Workspace(root=tmp_path / "copy")
    space.sae.mkdir(parents=True)
    (space.sae / "thesis.txt").write_text("my only copy")
    with pytest.raises(UsageError, match="no finished SAE"):
        bring(saelens_folder(tmp_path / "theirs", saelens_config(), saelens_tensors()), space, watch)
    assert (space.sae / "thesis.txt").read_text() == "my only copy"


def test_without_a_format_nothing_is_read_and_the_likely_one_is_named(
    tmp_path: Path, watch: RecordingWatch
) -> None:
    folder = gemma_folder(tmp_path / "theirs", gemma_arrays())
    space = Workspace(root=tmp_path)
    with pytest.raises(UsageError, match=r"looks like gemma_scope \(params\.npz\)"):
        bring(folder, space, watch, format=None)
    with pytest.raises(UsageError, match="looks like none"):
        bring(tmp_path, space, watch, format=None)
    assert not space.sae.exists()


def test_a_site_that_nobody_tells_or_that_is_none_is_asked_for(tmp_path: Path, watch: RecordingWatch) -> None:
    space, folder = Workspace(root=tmp_path), gemma_folder(tmp_path / "theirs", gemma_arrays())
    with pytest.raises(UsageError, match="does not tell its site"):
        bring(folder, space, watch, format=Format.GEMMA_SCOPE)
    with pytest.raises(UsageError, match="is not a site"):
        bring(folder, space, watch, format=Format.GEMMA_SCOPE, site="layer 20")
    with pytest.raises(UsageError, match="no transcoder"):
        bring(folder, space, watch, format=Format.GEMMA_SCOPE, site=SITE, target_site="blocks.2.resid_post")
    bring(folder, space, watch, format=Format.GEMMA_SCOPE, site=SITE)
    assert Sae.load(space.sae).meta.site == SITE
    assert any("bound to no model" in line for line in watch.said)
    z = saelens_config(metadata={"hook_name": "blocks.3.attn.hook_z"})
    with pytest.raises(UsageError, match=r"reads at 'blocks\.3\.attn\.hook_z', which is no site"):
        bring(saelens_folder(tmp_path / "z", z, saelens_tensors()), space, watch)


def test_a_transcoder_keeps_both_of_its_sites(tmp_path: Path, watch: RecordingWatch) -> None:
    space = Workspace(root=tmp_path)
    folder = sparsify_folder(tmp_path / "layers.4", sparsify_config(transcode=True), sparsify_tensors())
    bring(folder, space, watch, format=Format.SPARSIFY)
    meta = Sae.load(space.sae).meta
    assert (meta.site, meta.target_site) == ("blocks.3.resid_post", "blocks.4.resid_post")
    behind_a_norm = sparsify_folder(tmp_path / "layers.4.mlp", sparsify_config(transcode=True), sparsify_tensors())
    with pytest.raises(UsageError, match=r"the input of layers\.4\.mlp"):
        bring(behind_a_norm, space, watch, format=Format.SPARSIFY)


def test_activations_of_another_width_or_site_are_refused(
    tmp_path: Path, harvested: Workspace, watch: RecordingWatch
) -> None:
    folder = saelens_folder(tmp_path / "theirs", saelens_config(), saelens_tensors())
    with pytest.raises(SiteUnknown, match=r"blocks\.10\.resid_post"):
        bring(folder, harvested, watch)
    with pytest.raises(ModelMismatch, match=r"12 dimensions, activations at .* have 32"):
        bring(folder, harvested, watch, site=SITE)
    assert not harvested.sae.exists()


def test_another_model_and_other_tokens_are_told(
    tmp_path: Path, trained: Workspace, harvested: Workspace, watch: RecordingWatch
) -> None:
    made = foreign.export_sae(Sae.load(trained.sae), tmp_path / "out", format=Format.SAELENS, force=False)
    config = json.loads((made.path / "cfg.json").read_text())
    config["metadata"] |= {"model_name": "gpt2-small", "prepend_bos": not config["metadata"]["prepend_bos"]}
    config["metadata"]["model_from_pretrained_kwargs"] = {"center_writing_weights": True}
    (made.path / "cfg.json").write_text(json.dumps(config))
    bring(made.path, harvested, watch)
    for words in ("name the model gpt2-small", "prepend_bos", "center_writing_weights"):
        assert any(words in line for line in watch.said), words


def test_export_replaces_files_only_by_force(tmp_path: Path, trained: Workspace) -> None:
    sae = Sae.load(trained.sae)
    first = foreign.export_sae(sae, tmp_path, format=Format.SPARSIFY, force=False)
    assert first.path == tmp_path / "layers.1"
    assert sorted(path.name for path in first.path.iterdir()) == sorted(first.files)
    with pytest.raises(UsageError, match=r"already there: .*sae\.safetensors"):
        foreign.export_sae(sae, tmp_path, format=Format.SPARSIFY, force=False)
    assert foreign.export_sae(sae, tmp_path, format=Format.SPARSIFY, force=True) == first
    with pytest.raises(UsageError, match="read, not written"):
        foreign.export_sae(sae, tmp_path, format=Format.GEMMA_SCOPE, force=True)


def test_what_cannot_be_exported_leaves_nothing(tmp_path: Path, trained: Workspace) -> None:
    sae = Sae.load(trained.sae)
    by_threshold = Sae.of(
        sae.tensors() | {"threshold": torch.ones(sae.meta.d_sae)}, sae.meta.model_copy(update={"k": None})
    )
    with pytest.raises(ForeignFormat, match="top-k SAEs only"):
        foreign.export_sae(by_threshold, tmp_path / "out", format=Format.SPARSIFY, force=False)
    assert not (tmp_path / "out").exists()


def test_the_verbs_import_and_export_and_say_so_in_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"model": {"ref": "nowhere"}}))
    folder = saelens_folder(tmp_path / "theirs", saelens_config(), saelens_tensors())
    monkeypatch.setenv("SAEOPS_TRACKING", "none")

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["saeops", *arguments, "--root", str(tmp_path)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Said(ended.value.code, said.out, said.err)

    unsaid = run("import", str(folder))
    assert unsaid.code == 2
    assert "--format saelens" in unsaid.err
    done = run("import", str(folder), "--format", "saelens", "--json")
    assert done.code == 0
    assert json.loads(done.out)["digest"] == open_sealed(tmp_path / "artifacts" / "sae", kind="sae").digest
    refused = run("export", "--format", "sparsify", "--json")
    assert refused.code == 2
    assert json.loads(refused.out)["error"] == "ForeignFormat"
    exported = run("export", "--format", "dictionary_learning", "--json")
    assert exported.code == 0
    assert json.loads(exported.out)["files"] == ["ae.pt", "config.json"]
    assert (tmp_path / "artifacts" / "export" / "dictionary_learning" / "ae.pt").exists()


def test_the_sae_of_a_promoted_dictionary_is_exported_by_name(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "made")
    house = Registry(LocalStore(tmp_path / "var" / "registry"), MemoryProjection(), patience_s=0)
    verdict = verdict_on(bundle, read_state(house.store, NAME).champion)
    promote.run(bundle.path, verdict, registry=house, author=author("a"))
    settings = Settings.from_environment(tmp_path, {"SAEOPS_CACHE": str(tmp_path / "cache")})
    services = Services(settings, quiet=True)
    made = services.export_sae(Format.SPARSIFY, to=tmp_path / "out", reference=f"{NAME}@champion", force=False)
    config = json.loads((made.path / "cfg.json").read_text())
    assert (config["k"], config["num_latents"], config["d_in"]) == (4, 16, 8)
