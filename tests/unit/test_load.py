import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import saeops
from saeops.adapters.projection import MemoryProjection
from saeops.adapters.stores import LocalStore
from saeops.dictionary.bundle import Bundle, seal_reviews
from saeops.dictionary.handle import Dictionary
from saeops.errors import FolderDamaged, IntegrityError, NameUnknown, VersionUnknown
from saeops.stages import promote, rollback
from saeops.stages.records import read_state
from saeops.stages.walk import Registry
from tests.bundles import NAME, D, author, decisions, tiny_bundle, verdict_on


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    return {name: tiny_bundle(tmp_path_factory.mktemp(name), seed) for seed, name in enumerate("ab")}


@pytest.fixture
def checkout(
    tmp_path: Path, bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Dictionary]:
    """`saeops.load` in a checkout where a was promoted, then b."""
    monkeypatch.setenv("SAEOPS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SAEOPS_STORE", raising=False)
    monkeypatch.delenv("SAEOPS_VAR", raising=False)
    house = registry_of(tmp_path)
    for name in "ab":
        verdict = verdict_on(bundles[name], read_state(house.store, NAME).champion)
        promote.run(bundles[name].path, verdict, registry=house, author=author(name))
    return lambda reference: saeops.load(reference, root=tmp_path)


def registry_of(root: Path) -> Registry:
    return Registry(LocalStore(root / "var" / "registry"), MemoryProjection(), patience_s=0)


def test_every_kind_of_reference_means_its_version(checkout, bundles: dict[str, Bundle]):
    a, b = bundles["a"].digest, bundles["b"].digest
    meant = {
        f"{NAME}@champion": b,
        f"{NAME}@previous": a,
        f"{NAME}@1": a,
        f"{NAME}@2": b,
        f"{NAME}@{a[:9]}": a,
        NAME: b,
        a: a,
        str(bundles["a"].path): a,
    }
    assert {reference: checkout(reference).digest for reference in meant} == meant


def test_load_follows_a_rollback(checkout, bundles: dict[str, Bundle], tmp_path: Path):
    rollback.run(NAME, registry=registry_of(tmp_path), author=author("back"), reason="it misfires")
    assert checkout(f"{NAME}@champion").digest == bundles["a"].digest
    assert checkout(f"{NAME}@previous").digest == bundles["b"].digest


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        ("other/name@champion", NameUnknown),
        (f"{NAME}@9", VersionUnknown),
        ("f" * 64, VersionUnknown),
        ("no-such-folder", VersionUnknown),
    ],
)
def test_a_reference_that_means_nothing_is_named(checkout, reference: str, error: type[Exception]):
    with pytest.raises(error, match=reference.split("@")[0][:20]):
        checkout(reference)


def test_a_loaded_dictionary_encodes_decodes_and_knows_itself(checkout, bundles: dict[str, Bundle]):
    features = checkout(f"{NAME}@champion")
    x_TD = torch.randn(5, D, generator=torch.Generator().manual_seed(0))
    codes = features.encode(x_TD)
    assert codes.dense().shape == (5, 16)
    torch.testing.assert_close(features.decode(codes), features.sae.reconstruct(x_TD))
    assert features.name == NAME
    assert features.metrics["explained_variance"].point == 0.8
    assert features.provenance.upstream == bundles["b"].provenance.upstream
    assert NAME in repr(features)


def test_features_are_those_trusted_under_the_policy_unless_told_otherwise(checkout):
    features = checkout(f"{NAME}@champion")
    assert [f.latent for f in features.features()] == [9, 8, 7, 6, 5, 4, 3]
    assert [f.latent for f in features.features(min_confidence=0.85)] == [9]
    nine = features.features()[0]
    assert (nine.label, nine.labeller, nine.reviewed) == ("label 9", "pattern", None)
    assert nine.density == pytest.approx(0.1)


def test_rejected_labels_are_left_out_and_edited_ones_carry_the_reviewer_s_text(tmp_path: Path, bundles):
    bundle = bundles["a"]
    said = [
        (9, "reject", None),
        (8, "edit", "digits"),
        (7, "accept", None),
        (6, "reject", None),
        (6, "accept", None),
    ]
    reviewed = seal_reviews(bundle.path, decisions(bundle.digest, said), tmp_path / "reviewed")
    found = {f.latent: (f.label, f.reviewed) for f in Dictionary(reviewed).features(min_confidence=0.5)}
    assert found == {
        8: ("digits", "edit"),
        7: ("label 7", "accept"),
        6: ("label 6", "accept"),
        5: ("label 5", None),
    }


# ── bytes ───────────────────────────────────────────────────────────────────


def test_a_bundle_damaged_in_the_store_is_not_loaded_and_leaves_nothing_in_the_cache(
    checkout, bundles: dict[str, Bundle], tmp_path: Path
):
    stored = tmp_path / "var" / "registry" / "bundles" / bundles["b"].digest / "sae" / "sae.safetensors"
    data = bytearray(stored.read_bytes())
    data[-1] ^= 1
    stored.write_bytes(data)
    with pytest.raises(FolderDamaged, match=r"sae/sae\.safetensors"):
        checkout(f"{NAME}@champion")
    for folder in ("bundles", "incoming"):
        assert not list((tmp_path / "cache" / folder).glob("*"))


def test_a_cached_copy_serves_without_the_store_s_bytes_and_is_replaced_when_it_went_bad(
    checkout, bundles: dict[str, Bundle], tmp_path: Path
):
    digest = bundles["b"].digest
    checkout(digest)
    copy = tmp_path / "cache" / "bundles" / digest / "labels" / "labels.parquet"
    good = copy.read_bytes()
    copy.write_bytes(good[:-1] + b"?")
    assert checkout(digest).features()
    assert copy.read_bytes() == good
    store = LocalStore(tmp_path / "var" / "registry")
    for key in store.list(f"bundles/{digest}/sae/"):
        store.delete(key)
    assert checkout(f"{NAME}@champion").digest == digest


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_single_byte_changed_in_any_file_is_found(bundles: dict[str, Bundle], data: st.DataObject):
    bundle = bundles["a"]
    files = sorted(p for p in bundle.path.rglob("*") if p.is_file() and p.stat().st_size)
    path = data.draw(st.sampled_from(files), label="file")
    good = path.read_bytes()
    at = data.draw(st.integers(0, len(good) - 1), label="byte")
    flip = data.draw(st.integers(1, 255), label="flip")
    try:
        path.write_bytes(good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :])
        # A changed version number in the manifest is told as another version.
        with pytest.raises(IntegrityError, match=f"{path.name}|this saeops reads"):
            saeops.load(str(bundle.path))
    finally:
        path.write_bytes(good)


def test_importing_saeops_loads_nothing_heavy():
    heavy = "{'torch', 'pandas', 'scipy', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", f"import saeops, sys; assert not {heavy}, {heavy}"], check=True)


def test_registry_verbs_do_not_wait_for_torch():
    heavy = "{'torch', 'pandas', 'scipy', 'matplotlib', 'transformers'} & set(sys.modules)"
    code = f"import saeops.stages.registry, saeops.stages.rollback, sys; assert not {heavy}, {heavy}"
    subprocess.run([sys.executable, "-c", code], check=True)
