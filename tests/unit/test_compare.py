"""Comparing: what truly differs is said to, and what does not is not."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from saeops.activations.policy import TokenPolicy
from saeops.activations.sites import Sites
from saeops.cli import app
from saeops.cli.compare import HALF, bar
from saeops.diagnostics import schema
from saeops.diagnostics.metrics import BY_DOCUMENT, RECONSTRUCTION
from saeops.dictionary.bundle import KIND, VERSION, Bundle, open_bundle
from saeops.dictionary.compare import FAMILY_ERROR, Measured, compare
from saeops.errors import FolderDamaged, NotComparable, VersionUnknown
from saeops.sealed import MANIFEST, seal
from saeops.stages import compare as stage
from saeops.stats import Bootstrap, Interval
from saeops.tables import write_table
from tests.bundles import tiny_bundle

DRAW = Bootstrap(resamples=2000, seed=0)
WIDTH = 8


def documents(
    hard: np.ndarray, generator: np.random.Generator, *, error: float, own: float = 0.02
) -> pd.DataFrame:
    """EvalDocumentTable of an SAE on documents as hard as `hard` says; `own` is what only this SAE finds hard."""
    n = len(hard)
    tokens = np.round(30 + 60 * hard)
    square = tokens * WIDTH * (1 + 0.2 * hard)
    wrong = np.clip(error * (0.5 + hard) * np.exp(own * generator.normal(size=n)), 0, 0.9)
    predictions = np.where(np.arange(n) % 3 < 2, tokens - 2, 0.0)
    lost = predictions * wrong * np.exp(own * generator.normal(size=n))
    clean = predictions * (2 + hard)
    return pd.DataFrame(
        {
            "document": np.arange(n, dtype=np.int32),
            "sha256": [f"{i:064x}" for i in range(n)],
            "tokens": tokens,
            "values": tokens * WIDTH,
            "error": wrong * square,
            "spread": 0.9 * square,
            "square": square,
            "cosine": tokens * np.sqrt(1 - wrong),
            "norm_out": (1 - wrong) * square,
            "dot": (1 - wrong) * square,
            "fired": 32 * tokens,
            "predictions": predictions,
            "ce_clean": clean,
            "ce_spliced": clean + lost,
            "ce_kept": clean,
            "ce_zero": clean + 6 * predictions,
            "ce_mean": clean + 4 * predictions,
            "kl": lost,
            "agree": predictions * (1 - wrong / 2),
        }
    )


def side(name: str, table: pd.DataFrame | None, *, confidence: float = 0.4) -> Measured:
    figures = {metric.name: metric.measure(table, DRAW) for metric in BY_DOCUMENT} if table is not None else {}
    figures["dead_fraction"] = Interval(0.1, 0.08, 0.12, 40, "documents")
    figures["label_confidence"] = Interval(confidence, confidence - 0.02, confidence + 0.02, 400, "latents")
    site = "blocks.1.resid_post"
    return Measured(name, name * 64, "m" * 64, TokenPolicy(), Sites(site, site), figures, table)


def hardness(seed: int, n: int = 60) -> np.ndarray:
    return np.random.default_rng(seed).beta(2, 3, n)


@pytest.fixture(scope="module")
def good() -> Measured:
    return side("a", documents(hardness(0), np.random.default_rng(1), error=0.2))


@pytest.fixture(scope="module")
def worse() -> Measured:
    return side("b", documents(hardness(0), np.random.default_rng(2), error=0.22))


def test_an_sae_that_is_truly_worse_is_said_to_be(good: Measured, worse: Measured) -> None:
    found = compare(good, worse, DRAW)
    assert {"explained_variance", "mse", "normalised_mse", "delta_ce_nats", "ce_recovered_mean"} <= set(
        found.outcomes("worse")
    )
    assert found.outcomes("better") == []
    assert "l0" in found.outcomes("no difference shown")


def test_intervals_that_overlap_do_not_hide_a_paired_difference(good: Measured, worse: Measured) -> None:
    figure = next(f for f in compare(good, worse, DRAW).figures if f.metric == "explained_variance")
    assert figure.paired
    assert figure.first.low is not None
    assert figure.second.high is not None
    assert figure.second.high > figure.first.low
    assert figure.outcome == "worse"


def test_swapping_sides_turns_every_figure_round(good: Measured, worse: Measured) -> None:
    there, back = compare(good, worse, DRAW), compare(worse, good, DRAW)
    turned = {"better": "worse", "worse": "better"}
    for one, other in zip(there.figures, back.figures, strict=True):
        assert one.difference.point == pytest.approx(-other.difference.point)
        assert other.outcome == turned.get(one.outcome, one.outcome)
        if one.difference.low is not None:
            assert one.difference.low == pytest.approx(-(other.difference.high or 0), abs=1e-12)


def test_nothing_differs_from_itself(good: Measured) -> None:
    found = compare(good, good, DRAW)
    assert found.outcomes("better") == found.outcomes("worse") == []
    assert all(figure.difference.point == 0 for figure in found.figures)


def test_equal_saes_raise_no_more_false_alarms_than_the_family_allows() -> None:
    repeats, alarms = 120, 0
    for seed in range(repeats):
        hard, generator = hardness(seed, n=40), np.random.default_rng([3, seed])
        tables = [documents(hard, generator, error=0.2, own=0.1) for _ in range(2)]
        bare = [replace(side(name, None), documents=table) for name, table in zip("ab", tables, strict=True)]
        found = compare(*bare, Bootstrap(1000, seed))
        alarms += bool(found.outcomes("better") + found.outcomes("worse"))
    assert 0 < alarms / repeats <= FAMILY_ERROR


def test_the_level_is_shared_among_the_judged_figures(good: Measured, worse: Measured) -> None:
    found = compare(good, worse, DRAW)
    described = [figure for figure in found.figures if figure.better == "none"]
    assert described
    assert all(figure.outcome == "not judged" for figure in described)
    assert found.judged == len(found.figures) - len(described)
    assert found.level == pytest.approx(1 - FAMILY_ERROR / found.judged)
    assert all(figure.difference.level == found.level for figure in found.figures)


def test_documents_are_paired_by_what_they_are_not_by_their_number(good: Measured) -> None:
    assert good.documents is not None
    shuffled = good.documents.sample(frac=1, random_state=0).reset_index(drop=True)
    shuffled["document"] = np.arange(len(shuffled), dtype=np.int32)
    found = compare(good, replace(good, documents=shuffled), DRAW)
    assert all(figure.difference.low == figure.difference.high == 0 for figure in found.figures if figure.paired)


def test_only_shared_documents_are_paired_and_the_number_is_said(good: Measured, worse: Measured) -> None:
    assert worse.documents is not None
    found = compare(good, replace(worse, documents=worse.documents.iloc[20:]), DRAW)
    assert found.shared_documents == 40
    ev = next(figure for figure in found.figures if figure.metric == "explained_variance")
    assert (ev.first.n, ev.second.n, ev.difference.n) == (40, 40, 40)


def test_figures_over_latents_stand_beside_unpaired(good: Measured) -> None:
    better = side("b", good.documents, confidence=0.6)
    figures = {figure.metric: figure for figure in compare(good, better, DRAW).figures}
    assert not figures["label_confidence"].paired
    assert figures["label_confidence"].outcome == "better"
    assert figures["dead_fraction"].outcome == "no difference shown"


@pytest.mark.parametrize("case", ["none shared", "an older format"])
def test_without_shared_documents_nothing_is_paired_and_the_reader_is_told(
    good: Measured, worse: Measured, case: str
) -> None:
    assert worse.documents is not None
    renamed = worse.documents.assign(sha256=[f"{i + 1000:064x}" for i in range(60)])
    other = replace(worse, documents=renamed if case == "none shared" else None)
    found = compare(good, other, DRAW)
    assert not any(figure.paired for figure in found.figures)
    assert any("nothing is paired" in caution for caution in found.cautions)
    assert {figure.metric for figure in found.figures} >= {metric.name for metric in BY_DOCUMENT}


def test_other_models_and_other_policies_are_refused(good: Measured, worse: Measured) -> None:
    with pytest.raises(NotComparable, match="was measured on model mmmmmmmmmmmm"):
        compare(good, replace(worse, model="n" * 64), DRAW)
    with pytest.raises(NotComparable, match="skip_positions 1 and 3"):
        compare(good, replace(worse, policy=TokenPolicy(skip_positions=3)), DRAW)


def test_reconstruction_of_another_site_is_shown_but_not_judged(good: Measured, worse: Measured) -> None:
    elsewhere = replace(worse, sites=Sites("blocks.2.resid_post", "blocks.2.resid_post"))
    found = compare(good, elsewhere, DRAW)
    reconstruction = {metric.name for metric in RECONSTRUCTION}
    assert reconstruction <= set(found.outcomes("not judged"))
    assert "delta_ce_nats" in found.outcomes("worse")
    assert any("blocks.2.resid_post" in caution for caution in found.cautions)


def test_a_bar_shows_on_which_side_of_zero_an_interval_lies() -> None:
    above = bar(Interval(2.0, 1.0, 4.0, 20, "documents"))
    across = bar(Interval(0.0, -1.0, 1.0, 20, "documents"))
    assert len(above) == len(across) == 2 * HALF + 1
    assert above == "────────┼─━━●━━━━"
    assert across == "━━━━━━━━●━━━━━━━━"
    assert bar(Interval(0.0, 0.0, 0.0, 20, "documents"))[HALF] == "●"
    assert bar(Interval(1.0, None, None, 3, "documents")) == ""


# ── bundles ─────────────────────────────────────────────────────────────────


def with_documents(bundle: Bundle, table: pd.DataFrame) -> Bundle:
    """The bundle sealed anew with sums by document."""
    write_table(table, bundle.path / "diagnostics" / schema.DOCUMENTS, schema.EvalDocumentTable)
    diagnostics = json.loads((bundle.path / "diagnostics" / MANIFEST).read_bytes())
    for folder, kind, version, inputs in (
        (bundle.path / "diagnostics", schema.KIND, schema.VERSION, diagnostics["inputs"]),
        (bundle.path, KIND, VERSION, bundle.inputs),
    ):
        (folder / MANIFEST).unlink()
        seal(folder, kind=kind, version=version, inputs=inputs, summary={})
    return open_bundle(bundle.path)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    made = []
    for seed, error in enumerate((0.2, 0.25)):
        bundle = tiny_bundle(tmp_path_factory.mktemp(f"side{seed}"), seed)
        made.append(with_documents(bundle, documents(hardness(0), np.random.default_rng(seed), error=error)))
    return made[0], made[1]


def test_the_verb_says_which_differences_are_real(bundles: tuple[Bundle, Bundle], tmp_path: Path) -> None:
    call = ["compare", *(str(bundle.path) for bundle in bundles), "--root", str(tmp_path)]
    shown = CliRunner().invoke(app, call, catch_exceptions=False)
    assert shown.exit_code == 0
    assert "Paired on 60 shared documents" in shown.output
    assert "Unpaired" in shown.output
    assert "B is worse in Explained variance" in shown.output
    assert "5 times in a hundred" in shown.output
    told = json.loads(CliRunner().invoke(app, [*call, "--json"], catch_exceptions=False).output)
    ev = next(figure for figure in told["figures"] if figure["metric"] == "explained_variance")
    assert ev["paired"]
    assert ev["outcome"] == "worse"
    assert ev["difference"]["high"] < 0
    assert told["family_error"] == FAMILY_ERROR


def test_an_older_bundle_is_compared_unpaired(bundles: tuple[Bundle, Bundle], tmp_path: Path) -> None:
    old = tiny_bundle(tmp_path / "old", 3)
    found = stage.run(str(bundles[0].path), str(old.path), store=None, cache=tmp_path)  # type: ignore[arg-type]
    assert not any(figure.paired for figure in found.figures)
    assert "diagnosed by an older saeops" in found.cautions[0]


def test_what_cannot_be_found_or_is_damaged_is_named(bundles: tuple[Bundle, Bundle], tmp_path: Path) -> None:
    from saeops.adapters.stores import LocalStore

    with pytest.raises(VersionUnknown):
        stage.run(str(bundles[0].path), "0123456789ab", store=LocalStore(tmp_path), cache=tmp_path)
    broken = tiny_bundle(tmp_path / "broken", 4)
    (broken.path / "sae" / "sae.json").write_text("{}")
    with pytest.raises(FolderDamaged, match=r"sae\.json"):
        stage.run(str(bundles[0].path), str(broken.path), store=LocalStore(tmp_path), cache=tmp_path)
