"""The report page and the terminal summary, from a bundle that no stage had to make."""

import io
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
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
from saeops.report.contents import Contents, read_contents
from saeops.report.declared import DECLARED
from saeops.report.figures import curve, histogram, nice_ticks
from saeops.report.numbers import number, share
from saeops.report.page import render
from saeops.report.rows import groups, null_beside, whisker
from saeops.report.ruling import ruling
from saeops.report.sampling import choose, coverage
from saeops.report.summary import render_summary
from saeops.report.tokens import shade, visible
from saeops.stages import report
from saeops.stats import Interval
from tests.report_fixture import D_SAE, DEAD, HOSTILE, HOSTILE_LABEL, Fixture, write_fixture

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


# ── the page ────────────────────────────────────────────────────────────────


def test_text_from_corpora_and_models_is_shown_and_never_run(page: str) -> None:
    seen = Seen(page)
    assert HOSTILE in seen.text
    assert HOSTILE_LABEL in seen.text, "the label is shown to the letter, braces included"
    assert sum(tag == "script" for tag, _ in seen.tags) == 1, "only the page's own script"
    assert not any("onerror" in attributes for _, attributes in seen.tags)


def test_the_page_asks_nothing_of_the_network(page: str) -> None:
    for tag, attributes in Seen(page).tags:
        for name in ("src", "href", "action", "srcset"):
            target = attributes.get(name) or ""
            assert not target or target.startswith(("#", "data:")), f"<{tag} {name}={target}>"
    assert "default-src 'none'" in page
    assert "@import" not in page
    assert "url(" not in page


def test_the_page_stays_small(page: str) -> None:
    assert len(page.encode()) < 3_000_000


def test_equal_bundles_give_equal_pages(built: Fixture, page: str, verdict: Verdict) -> None:
    again = render(
        read_contents(built.bundle),
        report.choices(built.params),
        texts=built.words.texts,
        verdict=verdict,
        review=None,
    )
    assert again == page


def test_random_latents_stand_before_the_best(page: str) -> None:
    assert page.index("Drawn at random") < page.index("Best labelled")


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
    beside = {row.null for row in shown if row.null}
    assert contents.metrics.keys() - names <= {
        "pca_explained_variance",
        "label_shuffled_confidence",
        "off_target_kl_random_nats",
    }
    assert {"PCA of equal size", "labels of other latents", "random directions"} <= beside
    for row in shown:
        assert row.title in page


def test_a_metric_nobody_declared_is_still_shown(contents: Contents) -> None:
    stray = Interval(3.0, 2.0, 4.0, 9, "documents")
    found = groups({**contents.metrics, "invented": stray}, DECLARED, ())
    assert [row.name for row in found[-1].rows] == ["invented"]


def test_dead_latents_in_the_sample_are_shown_as_dead(built: Fixture, contents: Contents, page: str) -> None:
    drawn_dead = set(choose(contents, seed=built.params.seed).random) & set(DEAD)
    assert drawn_dead, "the fixture's seed draws at least one"
    assert sum("dead" in css.split() for css in Seen(page).classes("article")) == len(drawn_dead)
    assert "Silent on every explain document" in page


# ── the sample ──────────────────────────────────────────────────────────────


def test_the_random_sample_does_not_depend_on_labels(contents: Contents) -> None:
    none_labelled = replace(contents, labels=contents.labels.iloc[:0])
    assert choose(contents, seed=3).random == choose(none_labelled, seed=3).random
    assert choose(none_labelled, seed=3).best == ()


def test_the_random_sample_reaches_every_latent(contents: Contents) -> None:
    drawn = {latent for seed in range(100) for latent in choose(contents, seed=seed).random}
    assert drawn == set(range(D_SAE))


def test_no_latent_is_shown_twice_and_the_best_come_in_order(contents: Contents) -> None:
    chosen = choose(contents, seed=0)
    shown = [*chosen.random, *chosen.random_labelled, *chosen.best]
    assert len(shown) == len(set(shown))
    best = contents.labels[contents.labels["chosen"]].set_index("latent")["confidence"].loc[list(chosen.best)]
    assert best.is_monotonic_decreasing


def test_coverage_counts_latents_not_labels(contents: Contents) -> None:
    cover = coverage(contents, min_positives=5, trusted_confidence=0.3, reviewed=2)
    chosen = contents.labels[contents.labels["chosen"] & contents.labels["text"].notna()]
    assert cover.latents == D_SAE
    assert cover.living == D_SAE - len(DEAD)
    assert cover.labelled == chosen["latent"].nunique() < len(contents.labels)
    assert cover.scored == (chosen["n_positive"] >= 5).sum()
    assert cover.trusted == (chosen["confidence"] >= 0.3).sum()


# ── pieces ──────────────────────────────────────────────────────────────────


def test_a_context_keeps_every_character_and_marks_white_space() -> None:
    pieces = shade(["def", " f", "\n", "  ", "x"], [0, 2.0, 0, 0, 1.0], strongest=2.0, peak=1)
    shown = "".join(glyph.text for piece in pieces for glyph in piece.glyphs)
    assert shown == "def f↵··x"
    assert [piece.strength for piece in pieces] == [0, 1.0, 0, 0.5]
    assert [piece.is_peak for piece in pieces] == [False, True, False, False]


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
    drawn = whisker(Interval(0.3, -0.1, 0.5, 9, "prompts"), Interval(0.05, 0.0, 0.1, 9, "prompts"), 0.9)
    places = [drawn.point, drawn.low, drawn.high, drawn.null, drawn.null_low, drawn.null_high, drawn.gate]
    assert all(place is not None and 0 <= place <= 100 for place in places)
    assert drawn.low is not None
    assert drawn.zero is not None
    assert drawn.high is not None
    assert drawn.low < drawn.zero < drawn.high


def test_nothing_sampled_draws_no_point() -> None:
    assert whisker(Interval(0.0, 0.0, 1.0, 0, "answers"), None, None).point is None


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
        "PCA of equal size 0.521",
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
