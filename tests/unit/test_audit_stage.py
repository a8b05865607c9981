"""Audits of a tiny champion on versions of its model in which something is planted."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.audit import documents, false_alarms, read
from saeops.digests import digest_file
from saeops.drift.audit.documents import Wanted, choose
from saeops.drift.audit.latents import GONE
from saeops.drift.audit.record import parse_audit
from saeops.errors import CorpusTooSmall, ModelMismatch, ModelUnavailable, NameUnknown
from saeops.metrics import read_metrics, read_nulls
from saeops.sealed import verify
from saeops.stages.audit import Audited
from tests import auditing
from tests.auditing import LATENTS, NAME, SILENCED, SWAPPED, World, latents_of
from tests.killing import Killed, KillingWatch
from tests.tiny import VOCABULARY, RecordingWatch, save_tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("audited"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def gone(found: Audited) -> dict[str, list[int]]:
    latents = latents_of(found)
    named = {verdict: latents.index[latents["verdict"] == verdict].tolist() for verdict in GONE}
    return {verdict: numbers for verdict, numbers in named.items() if numbers}


def planted(world: World, change: Callable[[LlamaForCausalLM], None]) -> Audited:
    return world.audit(world.version(change.__name__, change))


def test_a_model_that_was_only_stored_differently_is_ok(world: World) -> None:
    found = planted(world, auditing.nothing)
    assert (found.record.outcome, found.record.reasons, gone(found)) == ("ok", (), {})
    assert not found.record.same_model
    assert found.record.latents.kept > LATENTS // 2


def test_a_site_scaled_down_weakens_every_latent_and_asks_for_a_fresh_start(world: World) -> None:
    found = planted(world, auditing.scaled)
    assert gone(found).keys() == {"weakened"}
    assert (found.record.outcome, found.record.fresh_start) == ("drift", True)
    ratios = latents_of(found).query("tested")["activation_ratio"]
    assert ratios.between(0.39, 0.41).all()


def test_swapped_directions_are_found_and_nothing_else(world: World) -> None:
    found = planted(world, auditing.swapped)
    assert gone(found) == {"changed": SWAPPED}
    drawn = json.loads((found.folder.path / "examples.json").read_bytes())
    assert [example["latent"] for example in drawn] == SWAPPED
    assert all(example["old"] and example["new"] for example in drawn)


def test_a_silenced_direction_is_lost_and_nothing_else(world: World) -> None:
    assert gone(planted(world, auditing.silenced)) == {"lost": SILENCED}


def test_fine_tuning_on_one_topic_changes_latents_and_no_null_says_so(world: World) -> None:
    # With seed 0 the random-init copy would be the tiny model itself, which is random too.
    found = world.audit(world.version("tuned", auditing.tuned_on_one_topic), seed=1)
    metrics, nulls = read_metrics(found.folder.path / "metrics.json"), read_nulls(found.folder.path / "nulls.json")
    assert found.record.outcome != "ok"
    itself, dealt = metrics["latent_correlation"], nulls["permuted"]["latent_correlation"]
    assert itself.low is not None
    assert dealt.high is not None
    assert itself.low > dealt.high
    assert nulls["other_documents"]["latents_gone"].point == 0
    assert nulls["random_model"]["latents_gone"].point > metrics["latents_gone"].point


def test_the_same_model_says_so_and_shows_the_noise(world: World) -> None:
    watch = RecordingWatch()
    found = world.audit(world.root / "v1", watch=watch)
    assert found.record.same_model
    assert found.record.outcome == "ok"
    assert any("champion's own" in line for line in watch.said)
    assert read_metrics(found.folder.path / "metrics.json")["density_shift_octaves"].point > 0
    assert latents_of(found)["correlation"].isna().all()


def test_another_width_ends_as_drift(world: World, tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **sizes)).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    found = world.audit(tmp_path)
    assert (found.record.outcome, found.record.fresh_start) == ("drift", True)
    assert "16 wide" in found.record.reasons[0]
    assert found.record.documents == 0


def test_another_tokenizer_is_said_and_compared_by_documents(world: World) -> None:
    folder = world.version("retokenized", auditing.nothing)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    # Without its merges it knows characters alone: the same text, other tokens.
    tokenizer["model"]["merges"] = []
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    found = world.audit(folder)
    assert found.record.outcome != "ok"
    assert any("tokenizer changed" in reason for reason in found.record.reasons)
    metrics = read_metrics(found.folder.path / "metrics.json")
    assert "context_overlap" not in metrics
    assert "latent_correlation" not in metrics
    assert latents_of(found)["correlation"].notna().any()


def test_the_record_lies_in_the_store_and_names_the_sealed_folder(world: World) -> None:
    found = planted(world, auditing.nothing)
    kept = world.store.get(found.key)
    assert kept is not None
    assert parse_audit(kept.data, found.key) == found.record
    assert found.key.startswith(f"names/{NAME}/audits/20260301T120000Z-")
    assert verify(found.folder.path, kind="audit").digest == found.record.report
    later = world.audit(world.root / "nothing", minutes=5)
    assert later.key > found.key
    assert later.record.report == found.record.report


@pytest.mark.parametrize("after", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (7, 9))])
def test_an_audit_killed_anywhere_goes_on_and_gives_the_same(world: World, tmp_path: Path, after: int) -> None:
    version = world.version("killed", auditing.swapped)
    with pytest.raises(Killed):
        world.audit(version, watch=KillingWatch(after), seed=after)
    assert list(world.checkout(version).glob("artifacts/.work/audit-*/parts/*.npz"))
    resumed = files(world.audit(version, seed=after))
    (world.checkout(version) / "artifacts" / "audit").rename(tmp_path / "audit")
    assert files(world.audit(version, seed=after)) == resumed
    assert not list(world.checkout(version).glob("artifacts/.work/audit-*"))


def files(found: Audited) -> dict[str, str]:
    folder = found.folder.path
    return {str(path.relative_to(folder)): digest_file(path) for path in folder.rglob("*") if path.is_file()}


def test_documents_that_trained_the_sae_are_left_out(world: World) -> None:
    params = world.params
    corpus = world.clients().corpus(params.corpus)
    wanted = Wanted(48, 4, 200, 400, params.harvest.splits, split_seed=0, seed=0)
    every = choose(corpus.documents(), None, wanted).audited
    trained = {document.sha256[:32] for document in every[:10]}
    left = choose(corpus.documents(), trained, wanted).audited
    assert {document.sha256 for document in left} == {document.sha256 for document in every[10:]}


# ── bad input ───────────────────────────────────────────────────────────────


def test_a_name_without_champion_is_named(world: World) -> None:
    with pytest.raises(NameUnknown, match="nobody"):
        world.audit(world.root / "v1", name="nobody/home")


def test_a_model_that_cannot_be_loaded_is_named(world: World, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable):
        world.audit(tmp_path / "nothing-here")


def test_too_few_documents_are_counted(tmp_path: Path) -> None:
    small = World.make(tmp_path)
    for path in sorted((tmp_path / "corpus").iterdir())[12:]:
        path.unlink()
    with pytest.raises(CorpusTooSmall, match="needs 16"):
        small.audit(tmp_path / "v1")


def test_a_champions_model_that_was_replaced_is_refused(tmp_path: Path) -> None:
    moved = World.make(tmp_path)
    save_tiny_model(tmp_path / "v1", seed=5)
    with pytest.raises(ModelMismatch, match="put the model"):
        moved.audit(tmp_path / "v1")


@pytest.mark.slow
def test_nothing_changed_raises_no_alarm_on_any_draw_of_documents(world: World) -> None:
    parts = read(world, world.root / "v1", documents(96))
    found = false_alarms(world, parts, "none", times=20, size=40)
    assert found["audits_with_a_false_latent"]["point"] <= 0.05
    assert found["audits_not_ok"]["point"] <= 0.05
