"""A monitor on tiny models: what it records equals encode of what is captured, and the model stays as it was."""

import datetime
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from prometheus_client import CollectorRegistry
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

import saeops
from saeops.activations.sites import find_structure, hidden_of, resolve
from saeops.adapters.model_source import digest_of_folder
from saeops.dictionary.handle import Dictionary
from saeops.errors import ModelMismatch, ModelUnchecked, SiteUnknown, UsageError
from saeops.monitor.attached import Monitor
from saeops.monitor.firings import Rotation
from saeops.sae.canonical import Sae, SaeMeta
from tests.bundles import tiny_bundle
from tests.tiny import D_MODEL, FAMILIES, save_tiny_model, tiny_model, tiny_tokenizer

F = 16
NOON = datetime.datetime(2026, 3, 1, 12, 0, tzinfo=datetime.UTC)
TRUSTED = [3, 4, 5, 6, 7, 8, 9]


def dictionary_of(
    root: Path,
    *,
    k: int | None = 4,
    model: str = "m" * 64,
    norm_limit: float | None = None,
    site: str = "resid_post",
    width: int = D_MODEL,
) -> Dictionary:
    """A dictionary of the tiny models' width whose latents 3 to 9 are trusted."""
    dictionary = Dictionary(tiny_bundle(root, width=D_MODEL, model=model))
    generator = torch.Generator().manual_seed(1)
    W_dec = nn.functional.normalize(torch.randn(F, width, generator=generator), dim=1)
    variant = "topk" if k else "jumprelu"
    meta = SaeMeta(variant=variant, site=f"blocks.1.{site}", d_model=width, d_sae=F, k=k, norm_limit=norm_limit)
    threshold = None if k else torch.linspace(0, 0.5, F)
    b_dec = torch.full((width,), 0.1)
    dictionary.__dict__["sae"] = Sae(W_dec.T.contiguous(), torch.zeros(F), W_dec, b_dec, threshold, meta)
    return dictionary


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "firings"


def captured(model: nn.Module, site: str, ids: Tensor, **kwargs: Any) -> Tensor:
    place = resolve(find_structure(model), site)
    seen = []
    handle = place.module.register_forward_hook(lambda _m, _a, output: seen.append(hidden_of(output).clone()))
    with torch.no_grad():
        model(ids, **kwargs)
    handle.remove()
    return seen[0]


def expected(dictionary: Dictionary, x_BWD: Tensor, ids_BW: Tensor, first: Tensor | None = None) -> pd.DataFrame:
    """The rows that belong to each token: encoded whole and filtered, one token at a time."""
    rows = []
    for b, (x_WD, ids_W) in enumerate(zip(x_BWD, ids_BW.tolist(), strict=True)):
        start = 0 if first is None else int(first[b])
        for w in range(start + 1, len(ids_W)):
            limit = dictionary.sae.meta.norm_limit
            if ids_W[w] in (0, 1) or (limit is not None and x_WD[w].norm() > limit):
                continue
            codes = dictionary.encode(x_WD[w : w + 1])
            rows += [
                (b, w - start, ids_W[w], int(latent), float(value))
                for latent, value in zip(codes.latent, codes.value, strict=True)
                if int(latent) in TRUSTED
            ]
    return pd.DataFrame(rows, columns=["sequence", "position", "token", "latent", "activation"])


def recorded(folder: Path) -> pd.DataFrame:
    frame = pd.read_parquet(folder)
    return (
        frame.drop(columns="at")
        .sort_values(["sequence", "position", "latent"], ignore_index=True)
        .astype({"sequence": int, "position": int, "token": int, "latent": int, "activation": float})
    )


def same(left: pd.DataFrame, right: pd.DataFrame) -> None:
    assert len(right) > 20
    pd.testing.assert_frame_equal(left, right, atol=1e-4, rtol=1e-4)


def text(batch: int = 3, length: int = 12) -> Tensor:
    ids = torch.randint(2, 320, (batch, length), generator=torch.Generator().manual_seed(0))
    ids[:, 0] = 0
    ids[1, 5] = 1
    return ids


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("k", [4, None])
@pytest.mark.filterwarnings("ignore::saeops.errors.ModelUnchecked")
def test_what_is_recorded_equals_encode_of_what_is_captured(tmp_path: Path, folder: Path, family, k):
    dictionary, model, ids = dictionary_of(tmp_path, k=k), tiny_model(family), text()
    with Monitor(dictionary, model, tiny_tokenizer(), folder=folder), torch.no_grad():
        model(ids)
    same(recorded(folder), expected(dictionary, captured(model, dictionary.sites.input, ids), ids))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore::saeops.errors.ModelUnchecked")
def test_in_generate_with_a_cache_and_padding_positions_go_on(tmp_path: Path, folder: Path, family):
    dictionary, model = dictionary_of(tmp_path), tiny_model(family)
    ids, mask = text(2, 6), torch.ones(2, 6, dtype=torch.long)
    # The second text is shorter: padding stands on its left.
    ids[1, :2], ids[1, 2], mask[1, :2] = 1, 0, 0
    with Monitor(dictionary, model, tiny_tokenizer(), folder=folder):
        out = model.generate(
            ids, attention_mask=mask, max_new_tokens=8, min_new_tokens=8, do_sample=False, pad_token_id=1
        )
    # The last token is never read.
    seen = out[:, :-1]
    whole = torch.cat([mask, torch.ones(2, seen.shape[1] - 6, dtype=torch.long)], 1)
    positions = (whole.cumsum(1) - 1).clamp(min=0)
    x_BWD = captured(model, dictionary.sites.input, seen, attention_mask=whole, position_ids=positions)
    same(recorded(folder), expected(dictionary, x_BWD, seen, torch.tensor([0, 2])))


@pytest.mark.filterwarnings("ignore::saeops.errors.ModelUnchecked")
def test_a_pass_that_goes_on_from_a_returned_cache_goes_on_with_its_sequences(tmp_path: Path, folder: Path):
    dictionary, model, ids = dictionary_of(tmp_path), tiny_model(), text()
    with Monitor(dictionary, model, tiny_tokenizer(), folder=folder), torch.no_grad():
        model(ids[:1])
        read = model(ids[:, :7], use_cache=True).past_key_values
        model(ids[:, 7:], past_key_values=read)
    rows = recorded(folder)
    whole = expected(dictionary, captured(model, dictionary.sites.input, ids), ids)
    same(rows[rows.sequence > 0].assign(sequence=lambda f: f.sequence - 1).reset_index(drop=True), whole)


@pytest.mark.filterwarnings("ignore::saeops.errors.ModelUnchecked")
def test_tokens_whose_norm_the_policy_leaves_out_are_left_out_and_counted(tmp_path: Path, folder: Path):
    model, ids = tiny_model(), text()
    x_BWD = captured(model, "blocks.1.resid_post", ids)
    dictionary = dictionary_of(tmp_path, norm_limit=float(x_BWD.norm(dim=-1).median()))
    with Monitor(dictionary, model, tiny_tokenizer(), folder=folder) as monitor, torch.no_grad():
        model(ids)
    same(recorded(folder), expected(dictionary, x_BWD, ids))
    assert monitor.tally.tokens + monitor.tally.skipped["policy"] == ids.numel()
    assert monitor.tally.skipped["policy"] > 4


def inside(model: nn.Module) -> list[Any]:
    """Everything that an attached hook could change."""
    return [(dict(m._forward_hooks), dict(m._forward_pre_hooks), sorted(vars(m))) for m in model.modules()]


@pytest.mark.parametrize("site", ["resid_post", "mlp_hidden"])
@pytest.mark.filterwarnings("ignore::saeops.errors.ModelUnchecked")
def test_detached_the_model_is_as_it_was_and_attached_it_answers_the_same(tmp_path: Path, site: str):
    model, ids = tiny_model(), text()
    dictionary = dictionary_of(tmp_path, site=site, width=64 if site == "mlp_hidden" else D_MODEL)
    before = inside(model)
    plain = model(ids).logits
    monitor = Monitor(dictionary, model, tiny_tokenizer())
    with monitor:
        assert torch.equal(model(ids).logits, plain)
        model(ids).logits.sum().backward()
    assert [
        (dict(m._forward_hooks), dict(m._forward_pre_hooks), sorted(vars(m))) for m in model.modules()
    ] == before
    seen = monitor.tally.tokens
    model(ids)
    assert monitor.tally.tokens == seen > 0
    with monitor:
        model(ids)
    assert monitor.tally.tokens > seen


@pytest.mark.filterwarnings("ignore::saeops.errors.ModelUnchecked")
def test_prometheus_collects_the_counts(tmp_path: Path, folder: Path):
    dictionary, model, registry = dictionary_of(tmp_path), tiny_model(), CollectorRegistry()
    with Monitor(dictionary, model, tiny_tokenizer(), folder=folder, registry=registry) as monitor:
        with torch.no_grad():
            model(text())
        monitor.flush()
        rows = recorded(folder)
        names = {"dictionary": dictionary.name, "digest": dictionary.digest[:12]}
        for latent in TRUSTED:
            mine, labels = (
                rows[rows.latent == latent],
                {**names, "latent": str(latent), "label": f"label {latent}"},
            )
            assert registry.get_sample_value("saeops_feature_firings_total", labels) == len(mine)
            total = registry.get_sample_value("saeops_feature_activation_total", labels)
            assert total == pytest.approx(mine.activation.sum(), rel=1e-5)
        assert registry.get_sample_value("saeops_tokens_total", names) == 32
        assert registry.get_sample_value("saeops_relative_activation_count", names) == len(rows)
        half = registry.get_sample_value("saeops_relative_activation_bucket", {**names, "le": "0.5"})
        assert half == (rows.activation <= 0.5 * 10).sum()
        with pytest.raises(UsageError, match="holds a monitor already"):
            Monitor(dictionary, model, tiny_tokenizer(), registry=registry).attach()
    assert registry.get_sample_value("saeops_tokens_total", names) is None


# ── files ───────────────────────────────────────────────────────────────────


@pytest.mark.filterwarnings("ignore::saeops.errors.ModelUnchecked")
def test_files_rotate_by_rows_and_age_and_the_oldest_go(tmp_path: Path, folder: Path):
    dictionary, model, now = dictionary_of(tmp_path), tiny_model(), [NOON]

    def tick() -> datetime.datetime:
        now[0] += datetime.timedelta(seconds=1)
        return now[0]

    options = {"folder": folder, "rotation": Rotation(rows=25, seconds=1000, files=3), "clock": tick}
    with Monitor(dictionary, model, tiny_tokenizer(), **options) as monitor, torch.no_grad():
        model(text())
        monitor.flush()
        model(text())
    files = sorted(folder.iterdir())
    assert len(files) == 3
    assert max(pq.read_metadata(file).num_rows for file in files) == 25
    facts = json.loads(pq.read_schema(files[-1]).metadata[b"saeops"])
    assert facts["format"] == 1
    assert facts["digest"] == dictionary.digest
    assert facts["features"]["9"] == ["label 9", 0.9]
    options |= {"folder": tmp_path / "aged", "rotation": Rotation(seconds=3)}
    with Monitor(dictionary, model, tiny_tokenizer(), **options), torch.no_grad():
        for _ in range(5):
            model(text())
        assert list((tmp_path / "aged").iterdir())


@pytest.mark.filterwarnings("ignore::saeops.errors.ModelUnchecked")
def test_a_folder_that_cannot_be_written_stops_the_recording_not_the_model(tmp_path: Path, folder: Path):
    dictionary, model = dictionary_of(tmp_path), tiny_model()
    plain = model(text()).logits
    monitor = Monitor(dictionary, model, tiny_tokenizer(), folder=folder, rotation=Rotation(rows=5)).attach()
    folder.rmdir()
    folder.write_text("in the way")
    with torch.no_grad(), pytest.warns(RuntimeWarning, match="records nothing more"):
        assert torch.equal(model(text()).logits, plain)
    with torch.no_grad():
        model(text())
    with pytest.raises(FileExistsError):
        monitor.detach()
    assert monitor.tally.tokens == 64
    assert not model.base_model._forward_hooks


# ── what is refused ─────────────────────────────────────────────────────────


def test_a_model_of_another_digest_is_refused_and_one_from_nowhere_is_warned_of(tmp_path: Path):
    ours, other = save_tiny_model(tmp_path / "ours"), save_tiny_model(tmp_path / "other", seed=1)
    dictionary = dictionary_of(tmp_path, model=digest_of_folder(ours, ""))
    tokenizer = AutoTokenizer.from_pretrained(ours)
    assert Monitor(dictionary, AutoModelForCausalLM.from_pretrained(ours), tokenizer)
    with pytest.raises(ModelMismatch, match="other"):
        Monitor(dictionary, AutoModelForCausalLM.from_pretrained(other), tokenizer)
    with pytest.warns(ModelUnchecked, match="was not loaded from a folder"):
        Monitor(dictionary, tiny_model(), tokenizer)


@pytest.mark.filterwarnings("ignore::saeops.errors.ModelUnchecked")
def test_nothing_trusted_and_a_site_that_is_not_there_are_refused(tmp_path: Path):
    dictionary = dictionary_of(tmp_path)
    with pytest.raises(UsageError, match="trusted enough"):
        Monitor(dictionary, tiny_model(), tiny_tokenizer(), min_confidence=0.99)
    with pytest.raises(SiteUnknown, match=r"blocks\.1"):
        Monitor(dictionary, tiny_model(layers=1), tiny_tokenizer())


@pytest.mark.filterwarnings("ignore::saeops.errors.ModelUnchecked")
def test_embeddings_and_numbers_that_are_none_are_counted_and_left_out(tmp_path: Path):
    dictionary, model = dictionary_of(tmp_path), tiny_model()
    with Monitor(dictionary, model, tiny_tokenizer()) as monitor, torch.no_grad():
        model(inputs_embeds=torch.randn(2, 5, D_MODEL))
        model.get_input_embeddings().weight[:] = float("nan")
        model(text())
    assert monitor.tally.skipped["embeddings"] == 10
    assert monitor.tally.skipped["non_finite"] == 32
    assert monitor.tally.tokens == 0


def test_the_monitor_is_one_of_the_two_public_names():
    assert saeops.Monitor is Monitor
    assert set(saeops.__all__) == {"Monitor", "load"}
