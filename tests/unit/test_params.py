"""Params: profiles, overrides, and faults that are all told at once."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from saeops.errors import ParamsInvalid
from saeops.params import (
    Params,
    Selection,
    check_against_model,
    load_params,
    overlay_on,
    parse_override,
    read_selection,
    validate_params,
    write_selection,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("profile", ["default", "small", "full"])
def test_every_profile_is_valid(profile: str) -> None:
    assert load_params(ROOT, Selection(profile=profile)).harvest.tokens > 0


def test_all_faults_are_told_at_once_with_their_paths() -> None:
    values = {
        "train": {"variant": "topk", "k": "many", "zeal": 1},
        "harvest": {"tokens": 0},
        "colour": "red",
    }
    with pytest.raises(ParamsInvalid) as caught:
        validate_params(values)
    paths = {path for path, _ in caught.value.faults}
    assert paths == {"train.k", "train.zeal", "harvest.tokens", "colour"}
    assert "train.zeal: unknown key" in str(caught.value)


@pytest.mark.parametrize("variant", ["topk", "batch_topk", "matryoshka"])
def test_k_larger_than_d_sae_is_refused_by_its_path(variant: str) -> None:
    params = validate_params({"train": {"variant": variant, "k": 5000}})
    with pytest.raises(ParamsInvalid, match=r"train\.k: must be ≤ d_sae \(5000 > 4608\)"):
        check_against_model(params, d_model=576)


def test_a_target_l0_larger_than_d_sae_is_refused_by_its_path() -> None:
    params = validate_params({"train": {"variant": "jumprelu", "sparsity": {"kind": "target_l0", "target": 5000}}})
    with pytest.raises(ParamsInvalid, match=r"train\.sparsity\.target: must be ≤ d_sae \(5000 > 4608\)"):
        check_against_model(params, d_model=576)


@pytest.mark.parametrize("prefixes", [[0.0001, 1.0], [0.5, 0.50001, 1.0]])
def test_prefixes_without_latents_of_their_own_are_refused(prefixes: list[float]) -> None:
    params = validate_params({"train": {"variant": "matryoshka", "prefixes": prefixes}})
    with pytest.raises(ParamsInvalid, match=r"train\.prefixes: each must hold latents of its own"):
        check_against_model(params, d_model=576)


@pytest.mark.parametrize("prefixes", [[0.5, 0.25, 1.0], [0.5, 0.5, 1.0], [0.25, 0.5]])
def test_prefixes_must_rise_and_end_in_1(prefixes: list[float]) -> None:
    with pytest.raises(ParamsInvalid, match=r"train: prefixes must rise and end in 1"):
        validate_params({"train": {"variant": "matryoshka", "prefixes": prefixes}})


def test_a_fault_inside_a_penalty_is_told_with_the_path_people_write() -> None:
    with pytest.raises(ParamsInvalid, match=r"train\.sparsity\.target: .*greater than 0"):
        validate_params({"train": {"variant": "jumprelu", "sparsity": {"kind": "target_l0", "target": -1}}})


def test_a_fractional_d_sae_is_refused() -> None:
    params = validate_params({"train": {"variant": "topk", "expansion_factor": 1.3}})
    with pytest.raises(ParamsInvalid, match="not a whole number"):
        check_against_model(params, d_model=576)


def test_a_field_of_another_variant_is_an_unknown_key() -> None:
    with pytest.raises(ParamsInvalid, match=r"train\.k: unknown key"):
        validate_params({"train": {"variant": "relu_l1", "k": 3}})


def test_training_on_a_site_that_is_not_harvested_is_refused() -> None:
    with pytest.raises(ParamsInvalid, match=r"train\.site"):
        validate_params({"train": {"variant": "topk", "site": "blocks.1.resid_post"}})


def test_an_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(ParamsInvalid, match="default, full, small"):
        load_params(ROOT, Selection(profile="huge"))


@pytest.mark.parametrize("variant", ["topk", "batch_topk", "jumprelu", "gated", "matryoshka", "relu_l1"])
def test_another_variant_is_one_override_away(variant: str) -> None:
    """params.yaml holds fields of its own variant, which others may not have."""
    assert load_params(ROOT, Selection(set=(f"train.variant={variant}",))).train.variant == variant
    with pytest.raises(ParamsInvalid, match=r"train\.zeal: unknown key"):
        load_params(ROOT, Selection(set=("train.zeal=1", f"train.variant={variant}")))


def test_overrides_win_over_the_profile() -> None:
    params = load_params(ROOT, Selection(profile="small", set=("train.k=7", "label.llm_latents=0")))
    assert params.train.k == 7  # type: ignore[union-attr]
    assert params.label.llm_latents == 0


@pytest.mark.parametrize("bad", ["train.k", "=3", "train.k=[1"])
def test_an_override_that_cannot_be_read_says_how_to_write_one(bad: str) -> None:
    with pytest.raises(ParamsInvalid):
        parse_override(bad)


def test_no_params_file_says_where_to_run_from(tmp_path: Path) -> None:
    with pytest.raises(ParamsInvalid, match="run from the checkout"):
        load_params(tmp_path)


def test_the_selection_is_remembered(tmp_path: Path) -> None:
    assert read_selection(tmp_path) == Selection()
    chosen = Selection(profile="small", set=("train.k=8",))
    write_selection(tmp_path, chosen)
    assert read_selection(tmp_path) == chosen


def test_choosing_what_is_already_chosen_leaves_the_file_alone(tmp_path: Path) -> None:
    write_selection(tmp_path, Selection())
    before = (tmp_path / "profile.yaml").stat().st_mtime_ns
    write_selection(tmp_path, Selection())
    assert (tmp_path / "profile.yaml").stat().st_mtime_ns == before


def test_the_committed_selection_is_the_default() -> None:
    assert yaml.safe_load((ROOT / "profile.yaml").read_text()) == {"profile": "default", "set": []}


def test_params_cannot_be_changed_after_they_were_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Params().seed = 3  # type: ignore[misc]


sections = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8
)
mappings = st.dictionaries(st.sampled_from("abc"), sections, max_size=3)


@given(mappings, mappings)
def test_an_overlay_keeps_its_own_leaves_and_adds_nothing_else(base: dict, top: dict) -> None:
    merged = overlay_on(base, top)
    assert overlay_on(merged, top) == merged
    assert merged.keys() == base.keys() | top.keys()
    for key in base.keys() - top.keys():
        assert merged[key] == base[key]
