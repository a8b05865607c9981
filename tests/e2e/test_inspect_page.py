"""The page of an inspected text in a real browser: it runs, asks nobody, fits every screen, and answers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from saeops.activations.policy import TokenPolicy
from saeops.activations.windows import Window
from saeops.dictionary.handle import Feature
from saeops.dictionary.inspect import Reading, inspected
from saeops.report.inspected import render
from saeops.sae.codes import Codes
from tests.browser import CONTRASTS, Tab, find_browser, open_browser

BROWSER = find_browser()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        BROWSER is None,
        reason="no Chromium or Chrome on PATH (Debian: apt-get install chromium); .ci/run installs one",
    ),
]

TEXTS = ["<bos>", "The", " old", " man", "\n\n", "<img src=x onerror='window.hurt=1'>", " slept", "  ", "."]
HURTS = "</script><script>window.hurt = 1</script>"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two windows; latent 0 rises from token to token, latent 1 fires once, latent 2 is not trusted."""
    f_TF = torch.zeros(len(TEXTS) - 1, 3)
    f_TF[2:, 0] = torch.arange(1.0, 7.0)
    f_TF[3, 1] = 9.0
    f_TF[1:, 2] = 1.0
    ids = tuple(range(len(TEXTS)))
    readings = [
        Reading(Window(0, start, ids), TEXTS, [False] + [True] * (len(TEXTS) - 1), Codes.from_dense(f_TF))
        for start in (0, len(TEXTS) - 1)
    ]
    features = [
        Feature(latent, label, 0.5, 0.1, 10.0, "pattern", None)
        for latent, label in enumerate(["rises " + "and rises " * 12, HURTS])
    ]
    found = inspected(
        readings,
        features,
        name="tiny/blocks.1.resid_post",
        digest="a" * 64,
        site="blocks.1.resid_post",
        min_confidence=0.3,
        policy=TokenPolicy(),
        special_ids=frozenset(),
        bos=0,
    )
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(render(found))
    return path


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


CHIPS = "[...document.querySelectorAll('.tokens button')]"
PANEL = "document.getElementById('panel').innerText"


def test_the_page_opens_without_a_complaint_and_asks_for_itself_alone(tab: Tab, page: Path) -> None:
    assert tab.evaluate(f"{CHIPS}.length") == 2 * len(TEXTS)
    assert "2 of the 3 latents" in tab.evaluate("document.querySelector('.tail').textContent")
    assert tab.evaluate("window.hurt") is None, "a script from the text or a label ran"
    assert tab.complaints == []
    assert [address for address in tab.requests if not address.startswith("data:")] == [page.as_uri()]


def test_a_token_that_is_clicked_hovered_or_walked_to_shows_its_features(tab: Tab) -> None:
    tab.call("Emulation.setFocusEmulationEnabled", enabled=True)
    tab.evaluate(f"{CHIPS}[4].click()")
    assert HURTS in tab.evaluate(PANEL), "the strongest first, as text"
    assert "2 trusted of 3 latents" in tab.evaluate(PANEL)
    tab.evaluate(f"{CHIPS}[1].dispatchEvent(new MouseEvent('mouseenter'))")
    assert "Nothing trusted fires here" in tab.evaluate(PANEL)
    tab.evaluate(f"{CHIPS}[1].dispatchEvent(new MouseEvent('mouseleave'))")
    assert HURTS in tab.evaluate(PANEL), "back to the one that was clicked"
    tab.evaluate(f"{CHIPS}[0].focus()")
    assert "Masked" in tab.evaluate(PANEL)
    tab.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight")
    assert "Nothing trusted fires here" in tab.evaluate(PANEL)
    assert tab.evaluate("window.hurt") is None
    assert tab.complaints == []


def test_stronger_tokens_are_shaded_more(tab: Tab) -> None:
    opacity = "parseFloat(getComputedStyle(c).backgroundColor.split(/[,/]/).pop())"
    tab.evaluate("document.querySelector('#features [data-latent=\"0\"]').click()")
    shades = tab.evaluate(f"{CHIPS}.slice(3, 9).map(c => {opacity})")
    assert shades == sorted(shades)
    assert len(set(shades)) == len(shades)
    assert (
        tab.evaluate(f"{CHIPS}.slice(0, 3).map(c => getComputedStyle(c).backgroundColor)")
        == ["rgba(0, 0, 0, 0)"] * 3
    )


def test_the_page_never_scrolls_sideways(tab: Tab) -> None:
    for width in (1280, 768, 390, 320):
        tab.shape(width=width, scheme="light")
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{width} pixels wide"


def test_text_is_readable_in_light_and_dark(tab: Tab) -> None:
    for scheme in ("light", "dark"):
        tab.shape(width=1280, scheme=scheme)
        tab.evaluate(f"{CHIPS}[4].click()")
        assert tab.evaluate(CONTRASTS) == [], f"{scheme}: WCAG asks for 4.5"
