"""The report page and the terminal summary, from a bundle that no stage had to make."""

import base64
import hashlib
import io
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from saeops.adapters.watch import QuietWatch
from saeops.dictionary.bundle import open_bundle
from saeops.errors import FolderDamaged, StageMissing
from saeops.metrics import Better
from saeops.promotion.evidence import gather
from saeops.promotion.judge import judge
from saeops.promotion.verdict import Verdict
from saeops.refs import Workspace
from saeops.report.blocks import pack, rounded, unpack
from saeops.report.charts import profiles
from saeops.report.concepts import known
from saeops.report.contents import Champion, Contents, read_contents
from saeops.report.declared import DECLARED
from saeops.report.excerpts import LEAST_CONTEXTS, MOST_CONTEXTS, excerpts
from saeops.report.figures import curve, histogram, nice_ticks, profile
from saeops.report.numbers import number, share
from saeops.report.page import render, rivals_of
from saeops.report.rows import Beside, Rivals, groups, null_beside, whisker
from saeops.report.ruling import ruling
from saeops.report.sampling import coverage, drawn_order
from saeops.report.strings import StringTable
from saeops.report.summary import render_summary
from saeops.report.tokens import visible
from saeops.stages import report
from saeops.stats import Interval
from tests.report_fixture import D_SAE, DEAD, HOSTILE, HOSTILE_LABEL, TEXTS, Fixture, write_fixture

DIRECTIONS: dict[str, Better] = {m.name: m.better for group in DECLARED for m in group.metrics}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Fixture:
    return write_fixture(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def contents(built: Fixture) -> Contents:
    return read_contents(built.bundle)


@pytest.fixture(scope="module")
def verdict(built: Fixture) -> Verdict:
    return judge(gather(open_bundle(built.bundle)), None, built.params.promote, DIRECTIONS)


@pytest.fixture(scope="module")
def page(built: Fixture, contents: Contents, verdict: Verdict) -> str:
    choices = report.choices(built.params)
    return render(contents, choices, texts=built.words.texts, verdict=verdict, review=None)


class Seen(HTMLParser):
    """Elements, attributes and text as a browser would find them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._silent = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._silent = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._silent else data

    def classes(self, tag: str) -> list[str]:
        """The class attribute of every element of this kind."""
        return [attributes.get("class") or "" for found, attributes in self.tags if found == tag]


def blocks(page: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The index of the features, and every latent's details."""
    found = dict(re.findall(r'<script type="text/plain" id="block-(\w+)">([^<]*)</script>', page))
    index = unpack(found.pop("index"))
    return index, [details for number in sorted(found, key=int) for details in unpack(found[number])]


# ── the page ────────────────────────────────────────────────────────────────


def test_text_from_corpora_and_models_is_held_to_the_letter_and_never_run(page: str) -> None:
    index, _ = blocks(page)
    assert HOSTILE in index["strings"]
    assert HOSTILE_LABEL in index["label"], "braces included"
    assert HOSTILE not in page
    assert HOSTILE_LABEL not in page
    seen = Seen(page)
    kinds = [attributes.get("type") for tag, attributes in seen.tags if tag == "script"]
    assert kinds.count(None) == 1, "only the page's own script"
    assert set(kinds) == {None, "text/plain"}
    assert not any("onerror" in attributes for _, attributes in seen.tags)


def test_the_browser_is_told_which_script_may_run(page: str) -> None:
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "eval(" not in script[1]
    assert "innerHTML" not in script[1]


def test_the_page_asks_nothing_of_the_network(page: str) -> None:
    for tag, attributes in Seen(page).tags:
        for name in ("src", "href", "action", "srcset"):
            target = attributes.get(name) or ""
            assert not target or target.startswith(("#", "data:")), f"<{tag} {name}={target}>"
    assert "default-src 'none'" in page
    assert "@import" not in page
    assert "url(" not in page


def test_the_page_stays_small(page: str) -> None:
    assert len(page.encode()) < 1_000_000


def test_equal_bundles_give_equal_pages(built: Fixture, page: str, verdict: Verdict) -> None:
    again = render(
        read_contents(built.bundle),
        report.choices(built.params),
        texts=built.words.texts,
        verdict=verdict,
        review=None,
    )
    assert again == page


def test_every_gate_of_the_verdict_is_on_the_page(page: str, verdict: Verdict) -> None:
    text = Seen(page).text
    for gate in verdict.gates:
        assert gate.reason.replace("`", "") in text


def test_a_bundle_without_decisions_waits_for_review(page: str) -> None:
    text = Seen(page).text
    assert "Waiting for review" in text
    assert "saeops review decide" in text
    assert "python -m flows promote" in text


def test_every_metric_of_the_bundle_is_on_the_page(page: str, contents: Contents) -> None:
    shown = [row for group in groups(contents.metrics, DECLARED, ()) for row in group.rows]
    names = {row.name for row in shown}
    beside_ones = {what for row in shown for _, what, _, _ in row.beside}
    assert contents.metrics.keys() - names <= {"label_shuffled_confidence", "off_target_kl_random_nats"}
    assert {"labels of other latents", "random directions"} <= beside_ones
    for row in shown:
        assert row.title in page


def test_every_null_stands_beside_its_figure(page: str, contents: Contents) -> None:
    shown = groups(contents.metrics, DECLARED, (), rivals_of(contents))
    rows = {row.name: row for group in shown for row in group.rows}
    nulls = ["PCA of equal L0", "random dictionary", "SAE of a random model"]
    assert [what for _, what, _, _ in rows["explained_variance"].beside] == nulls
    assert [point for _, _, point, _ in rows["explained_variance"].beside] == ["0.521", "0.0830", "0.655"]
    assert [ring.point for ring in rows["explained_variance"].whisker.rings] == [52.1, 8.3, 65.5]
    assert rows["mse"].beside == ()
    assert all(null in Seen(page).text for null in nulls)


def test_the_champion_stands_beside_every_figure_it_has(
    built: Fixture, contents: Contents, verdict: Verdict
) -> None:
    champion = Champion("c4" * 32, {"explained_variance": Interval(0.70, 0.68, 0.72, 40, "documents")})
    choices = report.choices(built.params)
    text = Seen(
        render(
            contents,
            choices,
            texts=built.words.texts,
            verdict=verdict,
            review=None,
            champion=champion,
        )
    ).text
    assert "the champion c4c4c4c4c4c4" in text
    assert "champion 0.700 0.680 to 0.720" in " ".join(text.split())
    shown = groups(contents.metrics, DECLARED, (), rivals_of(contents, champion))
    with_one = [row.name for group in shown for row in group.rows if any(b[0] == "champion" for b in row.beside)]
    assert with_one == ["explained_variance"]


def test_a_map_between_sites_is_not_called_pca() -> None:
    assert Rivals(transcodes=True).title("pca") == "linear map of equal rank"
    assert Rivals().title("of_a_kind") == "of a kind"


def test_a_metric_nobody_declared_is_still_shown(contents: Contents) -> None:
    stray = Interval(3.0, 2.0, 4.0, 9, "documents")
    found = groups({**contents.metrics, "invented": stray}, DECLARED, ())
    assert [row.name for row in found[-1].rows] == ["invented"]


def test_known_concepts_and_letters_stand_with_their_latents_the_best_first(contents: Contents, page: str) -> None:
    concepts, letters = known(contents)
    assert [one.name for one in concepts.told] == ["digit", "comma"]
    assert concepts.told[0].figure == "0.80"
    assert " to " in concepts.told[0].interval, "an interval over documents"
    assert [ring.says for ring in concepts.told[0].whisker.rings] == [
        "labels moved along the text: 0.0100, no interval"
    ]
    assert "by its silence" in concepts.told[1].says
    assert concepts.left_out.endswith("backtick.")
    assert [(one.name, one.latents) for one in letters.told] == [
        ("a", ((3, TEXTS[2]),)),
        ("b", ((3, TEXTS[2]), (5, TEXTS[4]))),
    ]
    assert letters.told[0].figure == "0.033"
    assert 'href="#latent=5"' in page
    assert "Not measured" in Seen(page).text


def test_a_bundle_without_concepts_has_no_section_of_them(built: Fixture, contents: Contents) -> None:
    bare = replace(contents, concepts=pd.DataFrame(), letters=pd.DataFrame())
    page = render(bare, report.choices(built.params), texts=built.words.texts, verdict=None, review=None)
    assert known(bare) == ()
    assert 'id="concepts"' not in page
    assert 'href="#concepts"' not in page


# ── the features ────────────────────────────────────────────────────────────


def test_every_latent_is_in_the_page_once_in_the_order_drawn(
    built: Fixture, contents: Contents, page: str
) -> None:
    index, details = blocks(page)
    assert sorted(index["latent"]) == list(range(D_SAE))
    assert index["latent"] == drawn_order(contents, seed=built.params.seed).tolist() != list(range(D_SAE))
    assert len(details) == D_SAE
    assert f"drawn with seed {built.params.seed}" in Seen(page).text


def test_the_random_order_does_not_depend_on_labels(contents: Contents) -> None:
    none_labelled = replace(contents, labels=contents.labels.iloc[:0])
    assert (drawn_order(contents, seed=3) == drawn_order(none_labelled, seed=3)).all()
    assert (drawn_order(contents, seed=3) != drawn_order(contents, seed=4)).any()


def test_the_index_says_what_holds_of_each_latent(built: Fixture, contents: Contents, page: str) -> None:
    index, _ = blocks(page)
    held = {
        name: {latent for latent, flags in zip(index["latent"], index["flags"], strict=True) if flags >> bit & 1}
        for bit, name in enumerate(index["flag_names"])
    }
    chosen = contents.labels[contents.labels["chosen"] & contents.labels["text"].notna()]
    assert held["living"] == set(range(D_SAE)) - set(DEAD)
    assert held["labelled"] == set(chosen["latent"])
    assert held["trusted"] == set(
        chosen.loc[chosen["confidence"] >= built.params.promote.trusted_confidence, "latent"]
    )
    assert held["waiting"] == set(contents.review.pending)
    assert held["reviewed"] == set()
    assert held["benched"] == set(contents.effects["latent"])


def test_columns_hold_what_the_tables_hold(contents: Contents, page: str) -> None:
    index, _ = blocks(page)
    columns = {
        column["name"]: dict(zip(index["latent"], column["values"], strict=True)) for column in index["columns"]
    }
    assert list(columns) == [
        *("density", "confidence", "effect", "max_activation"),
        *("coherence", "ablation_sparsity", "logit_specificity", "max_cosine", "seed_cosine"),
    ]
    for latent, density in contents.latents["density"].items():
        assert columns["density"][latent] == pytest.approx(density, rel=1e-3)
    assert all(columns["coherence"][dead] is None for dead in DEAD)
    strongest = contents.effects.query("kind == 'steer' and metric == 'target_logprob' and strength == 4")
    assert {f: v for f, v in columns["effect"].items() if v is not None} == pytest.approx(
        dict(zip(strongest["latent"], strongest["difference_point"], strict=True)), rel=1e-3
    )


def test_a_context_holds_its_tokens_and_its_activations(built: Fixture, contents: Contents, page: str) -> None:
    index, details = blocks(page)
    checked = 0
    for latent, found in zip(index["latent"], details, strict=True):
        rows = list(contents.contexts[contents.contexts["latent"] == latent].itertuples(index=False))
        for activation, quantile, peak, tokens, pairs in found.get("contexts", []):
            texts = [index["strings"][token] for token in tokens]
            same = [row for row in rows if built.words.texts(row.tokens) == texts and row.quantile == quantile]
            row = next(row for row in same if row.activation == pytest.approx(activation, rel=6e-3))
            assert peak == row.position - row.start
            strongest = contents.latents.loc[latent, "max_activation"]
            levels = dict(zip(pairs[::2], pairs[1::2], strict=True))
            assert levels.keys() == set(np.flatnonzero(np.asarray(row.activations) > 0).tolist())
            for place, level in levels.items():
                assert level / index["levels"] == pytest.approx(row.activations[place] / strongest, abs=0.011)
            checked += 1
    assert checked > 500


def test_dead_latents_have_no_contexts(page: str) -> None:
    index, details = blocks(page)
    silent = [f for f, found in zip(index["latent"], details, strict=True) if "contexts" not in found]
    assert set(silent) == set(DEAD)


def test_details_hold_histogram_neighbours_rivals_and_effects(contents: Contents, page: str) -> None:
    index, details = blocks(page)
    of = dict(zip(index["latent"], details, strict=True))
    for latent, found in of.items():
        first, *counts = found.get("histogram", [0])
        whole = contents.diagnosed.loc[latent, "histogram"]
        assert list(whole[first : first + len(counts)]) == counts
        assert sum(whole) == sum(counts)
        assert found["neighbours"] == [[(latent + step) % D_SAE for step in (1, 2, 3)], [0.8, 0.5, 0.31]]
    two = contents.labels["latent"].value_counts().loc[lambda n: n == 2].index[0]
    assert [label["by"] for label in of[two]["labels"]] == ["pattern", "llm:in-process"]
    benched = contents.effects["latent"].iloc[0]
    assert [row[0] for row in of[benched]["effects"]][:3] == ["ablate", "ablate", "steer ×1"]


def test_as_many_contexts_are_shown_as_fit_the_strongest_first(contents: Contents) -> None:
    everything = contents.contexts
    few = excerpts(everything, most_tokens=0)
    assert few.contexts.groupby("latent").size().eq(LEAST_CONTEXTS).all()
    best = few.contexts[few.contexts["kind"] == "top"]
    assert best["rank"].eq(0).all(), "one of the strongest, and one from the quantiles"
    assert best["latent"].is_unique
    many = excerpts(everything)
    assert many.a_latent == MOST_CONTEXTS
    assert many.contexts.groupby("latent").size().eq(MOST_CONTEXTS).all()
    assert many.of_all == len(everything)
    assert not many.contexts.duplicated(["latent", "document", "position"]).any()
    strongest = many.contexts[many.contexts["kind"] == "top"].groupby("latent")["activation"]
    assert all(values.is_monotonic_decreasing for _, values in strongest)


def test_the_page_says_how_many_contexts_it_leaves_out(contents: Contents, page: str) -> None:
    shown = excerpts(contents.contexts)
    assert f"Contexts: {len(shown.contexts)} of the catalog’s {len(contents.contexts):,}" in Seen(page).text


def test_a_bundle_of_an_older_format_is_still_shown(built: Fixture, contents: Contents) -> None:
    old = replace(
        contents,
        nulls={},
        slices=pd.DataFrame(),
        latents=contents.latents.drop(columns=["neighbours", "neighbour_cosines"]),
        diagnosed=contents.diagnosed[["density", "n_active", "dead", "dense", "max_activation"]],
    )
    choices = report.choices(built.params)
    index, details = blocks(render(old, choices, texts=built.words.texts, verdict=None, review=None))
    assert [column["name"] for column in index["columns"]] == ["density", "confidence", "effect", "max_activation"]
    assert not any("histogram" in found or "neighbours" in found for found in details)


def test_coverage_counts_latents_not_labels(contents: Contents) -> None:
    cover = coverage(contents, min_positives=5, trusted_confidence=0.3, reviewed=2)
    chosen = contents.labels[contents.labels["chosen"] & contents.labels["text"].notna()]
    assert cover.latents == D_SAE
    assert cover.living == D_SAE - len(DEAD)
    assert cover.labelled == chosen["latent"].nunique() < len(contents.labels)
    assert cover.scored == (chosen["n_positive"] >= 5).sum()
    assert cover.trusted == (chosen["confidence"] >= 0.3).sum()


# ── pieces ──────────────────────────────────────────────────────────────────


def test_packed_values_come_back_and_cannot_end_their_element() -> None:
    value = {"text": ["</script><!--", "é", "\u2028", 'quote " and \\'], "number": [0.25, None, -3]}
    assert unpack(pack(value)) == value
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", pack(value))
    with pytest.raises(ValueError, match="JSON"):
        pack([float("nan")])


@pytest.mark.parametrize(
    ("value", "kept"), [(0.123456, 0.1235), (1234567.0, 1235000), (2.0, 2), (float("nan"), None), (None, None)]
)
def test_figures_are_kept_as_finely_as_a_reader_can_tell(value: float | None, kept: float | None) -> None:
    assert rounded(value) == kept


def test_frequent_texts_have_small_numbers() -> None:
    table = StringTable.of(Counter({"rare": 1, "the": 9, "a": 9}))
    assert table.strings == ("a", "the", "rare")
    assert table.numbers(["rare", "a"]) == [2, 0]


def test_a_token_alone_shows_what_it_is_made_of() -> None:
    assert visible(" the") == "·the"
    assert visible("\t\n") == "⇥↵"
    assert visible("") == "∅"
    assert visible("\u202e") == "�", "a direction override must not turn the page round"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (0.74213, "0.742"), (-0.5, "−0.500"), (1234.5, "1,234"), (31.94, "31.9"), (1e-7, "1.00×10⁻⁷")],
)
def test_numbers_have_three_digits_and_a_true_minus(value: float, shown: str) -> None:
    assert number(value) == shown


def test_shares_stay_readable_when_rare() -> None:
    assert share(0.00012) == "0.012 %"
    assert share(0.5) == "50.0 %"
    assert share(1.0) == "100 %"


def test_whiskers_keep_everything_on_the_axis() -> None:
    null = Beside("null", "nothing", Interval(0.05, 0.0, 0.1, 9, "prompts"))
    champion = Beside("champion", "champion", Interval(1.4, 1.2, 1.6, 9, "prompts"))
    drawn = whisker(Interval(0.3, -0.1, 0.5, 9, "prompts"), (champion, null), 0.9)
    places = [drawn.point, drawn.low, drawn.high, drawn.gate]
    places += [end for ring in drawn.rings for end in (ring.point, ring.low, ring.high)]
    assert all(place is not None and 0 <= place <= 100 for place in places)
    assert [ring.kind for ring in drawn.rings] == ["champion", "null"]
    assert drawn.low is not None
    assert drawn.zero is not None
    assert drawn.high is not None
    assert drawn.low < drawn.zero < drawn.high


def test_nothing_sampled_draws_no_point() -> None:
    assert whisker(Interval(0.0, 0.0, 1.0, 0, "answers"), (), None).point is None


def test_the_null_of_a_difference_is_what_is_left() -> None:
    metrics = {
        "steering_effect_nats": Interval(0.8, 0.6, 1.0, 12, "prompts"),
        "steering_vs_random_nats": Interval(0.7, 0.5, 0.9, 12, "prompts"),
    }
    null = null_beside("steering_effect_nats", metrics)
    assert null is not None
    assert null.point == pytest.approx(0.1)
    assert null.low is None, "the interval of a difference is not the null's"


def test_histograms_count_every_value() -> None:
    values = np.random.default_rng(0).uniform(0, 1, 500)
    chart = histogram(values, title="t", says="s", x_label="x")
    assert chart is not None
    assert sum(int(bar.says.split(": ")[1].split()[0]) for bar in chart.bars) == 500
    assert all(bar.height > 0 for bar in chart.bars)


def test_a_bar_names_the_latents_it_counts() -> None:
    values = np.random.default_rng(0).lognormal(size=400)
    chart = histogram(values, title="t", says="s", x_label="x", log10=True, column="density")
    assert chart is not None
    assert chart.axis is not None
    assert chart.axis.column == "density"
    for bar in chart.bars:
        amount = int(bar.says.split(": ")[1].split()[0])
        at = np.log10(values)
        is_last = bar.high == chart.axis.high
        assert ((at >= bar.low) & ((at <= bar.high) if is_last else (at < bar.high))).sum() == amount


def test_a_profile_draws_each_bucket_with_its_interval(contents: Contents) -> None:
    drawn = profiles(contents)
    assert [(chart.title, len(chart.marks)) for chart in drawn] == [
        ("Explained variance", 8),
        ("L0", 8),
        ("Explained variance", 5),
        ("L0", 5),
    ]
    for mark in drawn[0].marks:
        assert mark.low is not None
        assert mark.high is not None
        assert mark.high < mark.y < mark.low, "pixels grow downwards"
    assert drawn[0].marks[2].says.startswith("2 to 3: 0.64 [0.59, 0.69]")
    assert (
        profile([("alone", Interval(1, 0, 2, 9, "documents"))], title="", says="", x_label="", y_label="") is None
    )


def test_a_figure_of_nothing_is_not_drawn() -> None:
    assert histogram(np.zeros(4), title="t", says="s", x_label="x", log10=True) is None
    assert curve([1.0], [2.0], title="t", says="s", x_label="x", y_label="y") is None


def test_a_flat_curve_is_drawn_inside_the_figure() -> None:
    chart = curve([0, 1, 2], [4, 4, 4], title="t", says="s", x_label="x", y_label="y")
    assert chart is not None
    heights = {point.split()[1] for point in chart.path[1:].split("L")}
    assert len(heights) == 1
    assert 0 < float(heights.pop()) < chart.floor


def test_ticks_are_round_and_inside() -> None:
    assert nice_ticks(0, 1) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert nice_ticks(-0.13, 0.31, 4) == [-0.1, 0.0, 0.1, 0.2, 0.3]


# ── the verdict in words ────────────────────────────────────────────────────


def test_each_outcome_says_what_to_type_next(built: Fixture, contents: Contents, verdict: Verdict) -> None:
    done = replace(contents.review, pending=())
    size = report.choices(built.params).size
    for outcome, command in (
        ("pass", "python -m flows promote"),
        ("fail", f'make run ARGS="--set train.tokens={2 * size.train_tokens}"'),
        ("inconclusive", f'make run ARGS="--set diagnose.fidelity_documents={2 * size.fidelity_documents}"'),
    ):
        gates = tuple(replace(gate, outcome=outcome) for gate in verdict.gates if gate.metric == "delta_ce_nats")
        said = ruling(replace(verdict, outcome=outcome, gates=gates), done, name="a/b", size=size)  # type: ignore[arg-type]
        assert said.outcome == outcome
        assert said.steps[0].command == command
        assert len(said.steps) == 3


def test_a_failure_is_not_called_waiting(contents: Contents, verdict: Verdict, built: Fixture) -> None:
    failing = replace(
        verdict, outcome="fail", gates=(replace(verdict.gates[0], outcome="fail"), *verdict.gates[1:])
    )
    said = ruling(failing, contents.review, name="a/b", size=report.choices(built.params).size)
    assert said.outcome == "fail"
    assert "Explained variance" in said.sentence


def test_an_unjudged_bundle_says_so(contents: Contents, built: Fixture) -> None:
    said = ruling(None, contents.review, name="a/b", size=report.choices(built.params).size)
    assert (said.outcome, said.gates) == ("unjudged", ())


# ── the summary ─────────────────────────────────────────────────────────────


def test_the_summary_fits_a_hundred_columns_and_says_what_matters(
    built: Fixture, contents: Contents, verdict: Verdict
) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(
        render_summary(
            contents,
            report.choices(built.params),
            verdict=verdict,
            review=None,
            report=Path("artifacts/report/index.html"),
        )
    )
    text = console.export_text()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    for needed in (
        contents.digest[:12],
        "0.742",
        "0.729 to 0.755",
        "PCA of equal L0 0.521",
        "Waiting for review",
    ):
        assert needed in text
    assert "artifacts/report/index.html" in text
    assert len(text.splitlines()) < 40


# ── the stage ───────────────────────────────────────────────────────────────


def test_the_stage_writes_one_file_and_keeps_it_with_the_run(built: Fixture, verdict: Verdict) -> None:
    watch = QuietWatch()
    space = Workspace(root=built.bundle.parent.parent)
    path = report.run(
        built.params, space, model_tokens=built.words.texts, verdict=verdict, review=None, watch=watch
    )
    assert [file.name for file in space.report.iterdir()] == ["index.html"]
    assert watch.files == [path]
    assert "report/index.html" in str(path)


def test_a_missing_bundle_names_the_verb_that_makes_it(tmp_path: Path, built: Fixture) -> None:
    with pytest.raises(StageMissing, match="bundle") as caught:
        report.run(
            built.params,
            Workspace(root=tmp_path),
            model_tokens=built.words.texts,
            verdict=None,
            review=None,
            watch=QuietWatch(),
        )
    assert "saeops bundle" in caught.value.hint
    assert not (tmp_path / "artifacts").exists()


def test_a_changed_byte_is_refused(tmp_path: Path) -> None:
    changed = write_fixture(tmp_path).bundle / "labels" / "labels.parquet"
    data = bytearray(changed.read_bytes())
    data[100] ^= 1
    changed.write_bytes(data)
    with pytest.raises(FolderDamaged, match=r"labels\.parquet"):
        read_contents(changed.parent.parent)
