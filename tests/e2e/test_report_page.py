"""The report page in a real browser: it runs, asks nobody, fits every screen, and can be read."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from saeops.adapters.watch import QuietWatch
from saeops.refs import Workspace
from saeops.stages import report
from tests.browser import CONTRASTS, Tab, find_browser, open_browser
from tests.report_fixture import Fixture, write_fixture

BROWSER = find_browser()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        BROWSER is None,
        reason="no Chromium or Chrome on PATH (Debian: apt-get install chromium); .ci/run installs one",
    ),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Fixture:
    return write_fixture(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(built: Fixture) -> Path:
    return report.run(
        built.params,
        Workspace(root=built.bundle.parent.parent),
        model_tokens=built.words.texts,
        verdict=None,
        review=None,
        watch=QuietWatch(),
    )


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    assert BROWSER is not None
    with open_browser(BROWSER, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(browser: Tab, page: Path) -> Tab:
    browser.shape(width=1280, scheme="light")
    browser.open(page.as_uri())
    return browser


def test_the_page_opens_without_a_complaint_and_asks_for_itself_alone(tab: Tab, page: Path) -> None:
    assert tab.evaluate("document.querySelector('h1').textContent") == "tiny/blocks.1.resid_post"
    assert tab.evaluate("window.hurt") is None, "a script from the corpus ran"
    assert tab.complaints == []
    assert [address for address in tab.requests if not address.startswith("data:")] == [page.as_uri()]


def test_the_page_never_scrolls_sideways(tab: Tab) -> None:
    for width in (1280, 768, 390, 320):
        tab.shape(width=width, scheme="light")
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{width} pixels wide"


def test_text_is_readable_in_light_and_dark(tab: Tab) -> None:
    for scheme in ("light", "dark"):
        tab.shape(width=1280, scheme=scheme)
        faint = tab.evaluate(CONTRASTS)
        assert faint == [], f"{scheme}: WCAG asks for 4.5"


def test_the_filter_hides_what_does_not_fit(tab: Tab) -> None:
    type_in = "query.value = %r; query.dispatchEvent(new Event('input'))"
    shown = "[...document.querySelectorAll('.card')].filter(c => c.offsetParent).map(c => c.textContent)"
    everything = tab.evaluate(shown)
    tab.evaluate(type_in % "indented BLOCK")
    some = tab.evaluate(shown)
    assert 0 < len(some) < len(everything)
    assert all("indented block" in text.lower() for text in some)
    assert tab.evaluate("found.textContent") == f"{len(some)} of {len(everything)} shown"
    tab.evaluate(type_in % "")
    tab.evaluate("kind.value = 'dead'; kind.dispatchEvent(new Event('change'))")
    assert all("Silent on every" in text for text in tab.evaluate(shown))


def test_the_strongest_token_is_shaded_most(tab: Tab) -> None:
    opacity = "parseFloat(getComputedStyle(m).backgroundColor.split(/[,/]/).pop())"
    marks = "[...document.querySelectorAll('mark')].slice(0, 60)"
    shades = tab.evaluate(f"{marks}.map(m => [+m.style.getPropertyValue('--a'), {opacity}])")
    by_strength = sorted(shades)
    assert len({strength for strength, _ in by_strength}) > 5
    assert [opacity for _, opacity in by_strength] == sorted(opacity for _, opacity in by_strength)
