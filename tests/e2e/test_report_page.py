"""The report page in a real browser: it runs, asks nobody, fits every screen, and can be read."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from saeops.adapters.watch import QuietWatch
from saeops.refs import Workspace
from saeops.report.contents import Contents, read_contents
from saeops.report.excerpts import MOST_CONTEXTS, excerpts
from saeops.report.sampling import drawn_order
from saeops.stages import report
from tests.browser import CONTRASTS, Tab, find_browser, open_browser
from tests.report_fixture import D_SAE, DEAD, HOSTILE, HOSTILE_LABEL, Fixture, write_fixture

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
def contents(built: Fixture) -> Contents:
    return read_contents(built.bundle)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    assert BROWSER is not None
    with open_browser(BROWSER, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


SETTLED = """
new Promise((done) => setTimeout(function look() {
  const busy = !report.browser || !document.getElementById("progress").hidden;
  if (busy) setTimeout(look, 10); else setTimeout(done, 60);
}, 120))
"""
SHOWN = "report.browser.list.rows.map((row) => report.browser.data.latent[row])"


def settle(tab: Tab) -> None:
    tab.evaluate(SETTLED)


@pytest.fixture
def tab(browser: Tab, page: Path) -> Tab:
    browser.shape(width=1280, scheme="light")
    browser.open(page.as_uri())
    settle(browser)
    return browser


def test_the_page_opens_without_a_complaint_and_asks_for_itself_alone(tab: Tab, page: Path) -> None:
    assert tab.evaluate("document.querySelector('h1').textContent") == "tiny/blocks.1.resid_post"
    assert tab.evaluate("window.hurt") is None, "a script from the corpus ran"
    assert tab.complaints == []
    assert [address for address in tab.requests if not address.startswith("data:")] == [page.as_uri()]


def test_the_page_never_scrolls_sideways(tab: Tab) -> None:
    for width in (1280, 768, 390, 320):
        tab.shape(width=width, scheme="light")
        settle(tab)
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{width} pixels wide"


def test_text_is_readable_in_light_and_dark(tab: Tab) -> None:
    chosen = "choose(report.browser.data.flags.indexOf(Math.max(...report.browser.data.flags)))"
    for scheme, seen in (("light", "close()"), ("dark", "close()"), ("light", chosen), ("dark", chosen)):
        tab.shape(width=1280, scheme=scheme)
        tab.evaluate(f"report.browser.{seen}")
        settle(tab)
        faint = tab.evaluate(CONTRASTS)
        assert faint == [], f"{scheme}: WCAG asks for 4.5"


# ── the feature browser ─────────────────────────────────────────────────────


def search(tab: Tab, text: str) -> list[int]:
    """The latents that a search lists, in the list's order."""
    tab.evaluate(f"query.value = {text!r}; query.dispatchEvent(new Event('input'))")
    settle(tab)
    return list(tab.evaluate(SHOWN))


def pick(tab: Tab, select: str, value: str) -> list[int]:
    tab.evaluate(f"{select}.value = {value!r}; {select}.dispatchEvent(new Event('change'))")
    settle(tab)
    return list(tab.evaluate(SHOWN))


def press(tab: Tab, key: str) -> None:
    """A real key press, wherever the focus is."""
    text = {"text": key} if len(key) == 1 else {}
    tab.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
    tab.call("Input.dispatchKeyEvent", type="keyUp", key=key)
    tab.evaluate("new Promise((done) => setTimeout(done, 60))")


def test_the_first_page_holds_random_latents(tab: Tab, built: Fixture, contents: Contents) -> None:
    drawn = drawn_order(contents, seed=built.params.seed).tolist()
    assert tab.evaluate(SHOWN) == drawn
    assert tab.evaluate("document.querySelector('#pane h3').textContent") == "Drawn at random"
    assert tab.evaluate("[...document.querySelectorAll('#pane .card')].map(c => +c.dataset.latent)") == drawn[:12]
    assert tab.evaluate("found.textContent") == f"all {D_SAE} latents"


def test_only_the_rows_in_sight_are_in_the_document(tab: Tab) -> None:
    there = "document.querySelectorAll('.item').length"
    assert 5 < tab.evaluate(there) < 40
    tab.evaluate("list.scrollTop = 1e6; new Promise((done) => setTimeout(done, 100))")
    assert tab.evaluate("document.querySelector('.item:last-child').getAttribute('aria-posinset')") == str(D_SAE)
    assert tab.evaluate(there) < 40


def test_a_search_finds_numbers_labels_tokens_and_contexts(tab: Tab, contents: Contents) -> None:
    labels = contents.labels[contents.labels["chosen"]].set_index("latent")["text"].dropna()
    fits = set(labels.index[labels.str.contains("indented block")])
    assert set(search(tab, "indented BLOCK")) >= fits
    assert set(search(tab, "indented BLOCK")[: len(fits)]) == fits, "labels before contexts"
    assert tab.evaluate("found.textContent").startswith(f"{len(tab.evaluate(SHOWN))} of {D_SAE} latents")
    assert search(tab, "#17") == [17]
    assert 17 in search(tab, "17")
    assert search(tab, "no such words anywhere") == []
    assert "No latent fits" in tab.evaluate("pane.textContent")


def test_a_search_reads_the_contexts_that_the_page_holds(tab: Tab, built: Fixture, contents: Contents) -> None:
    shown = excerpts(contents.contexts).contexts
    texts = shown.assign(text=["".join(built.words.texts(tokens)).lower() for tokens in shown["tokens"]])
    phrase = next(found[0] for text in texts["text"] if (found := re.search(r"[a-z]{4,} [a-z]{4,}", text)))
    fits = set(texts.loc[texts["text"].str.contains(phrase, regex=False), "latent"])
    assert set(search(tab, f'"{phrase}"')) == fits


def test_a_token_search_wants_the_whole_token(tab: Tab) -> None:
    index = "report.browser.data"
    token = tab.evaluate(f"{index}.strings[{index}.fires[{index}.fires.findIndex((f) => f.length)][0]].trim()")
    fires = f"{index}.texts({index}.fires[row]).some((t) => t.trim().toLowerCase() === {token.lower()!r})"
    fits = tab.evaluate(f"{index}.latent.filter((_, row) => {fires})")
    assert fits
    assert search(tab, f'token:"{token}"') == fits


def test_orders_and_filters_list_what_they_say(tab: Tab, contents: Contents) -> None:
    density = contents.latents["density"]
    rows = pick(tab, "sort", "density")
    assert [density[latent] for latent in rows] == sorted(density, reverse=True)
    tab.evaluate("turn.click()")
    settle(tab)
    assert [density[latent] for latent in tab.evaluate(SHOWN)] == sorted(density)
    labels = contents.labels[contents.labels["chosen"]].set_index("latent")
    confidence = labels.loc[labels["text"].notna(), "confidence"]
    by_confidence = pick(tab, "sort", "confidence")
    assert by_confidence[0] == confidence.idxmax()
    assert set(by_confidence[: len(confidence)]) == set(confidence.index), "what has no label comes last"
    assert pick(tab, "sort", "effect")[0] in set(contents.effects["latent"])
    assert set(pick(tab, "kind", "-living")) == set(DEAD)
    assert set(pick(tab, "kind", "-labelled")) == set(range(D_SAE)) - set(confidence.index)
    assert set(pick(tab, "kind", "waiting")) == set(contents.review.pending)


def test_keys_walk_read_and_leave(tab: Tab) -> None:
    rows = tab.evaluate(SHOWN)
    press(tab, "j")
    press(tab, "j")
    press(tab, "j")
    press(tab, "k")
    assert tab.evaluate("location.hash") == f"#latent={rows[1]}"
    assert tab.evaluate("document.querySelector('#pane .card').dataset.latent") == str(rows[1])
    press(tab, "/")
    assert tab.evaluate("document.activeElement.id") == "query"
    press(tab, "j")
    assert tab.evaluate("query.value") == "j", "letters typed into the box are text"
    press(tab, "Escape")
    assert tab.evaluate("query.value") == ""
    press(tab, "ArrowDown")
    press(tab, "ArrowDown")
    press(tab, "Enter")
    assert tab.evaluate("document.activeElement.id") == "pane"
    press(tab, "Escape")
    assert tab.evaluate("document.querySelectorAll('#pane .card').length") == 12
    press(tab, "?")
    assert tab.evaluate("keys.open") is True
    assert tab.complaints == []


def test_a_link_opens_its_latent(tab: Tab, page: Path, contents: Contents) -> None:
    latent = int(contents.effects["latent"].iloc[0])
    tab.open("about:blank")
    tab.open(f"{page.as_uri()}#latent={latent}")
    settle(tab)
    card = "document.querySelector('#pane .card')"
    assert tab.evaluate(f"{card}.dataset.latent") == str(latent)
    assert tab.evaluate(f"{card}.querySelectorAll('.contexts li').length") == MOST_CONTEXTS
    assert tab.evaluate(f"{card}.querySelectorAll('.activations rect').length") > 3
    text = tab.evaluate(f"{card}.textContent")
    for part in ("Nearest directions", "raises", "lowers", "coherence", "random", "fires on"):
        assert part in text
    tab.evaluate(f"{card}.querySelector('.neighbours a').click()")
    settle(tab)
    assert tab.evaluate(f"{card}.dataset.latent") == str((latent + 1) % D_SAE)


def test_hostile_text_is_shown_to_the_letter(tab: Tab) -> None:
    rows = search(tab, '"onerror=hurt"')
    assert rows
    tab.evaluate(f"report.browser.choose(report.browser.data.rowOf({rows[0]}))")
    settle(tab)
    assert HOSTILE_LABEL in tab.evaluate("pane.textContent")
    rows = search(tab, f'"{HOSTILE}"')
    assert rows
    assert all(HOSTILE in card for card in contexts_of(tab, rows[:3]))
    assert tab.evaluate("document.querySelectorAll('#browser img, #browser script').length") == 0
    assert tab.evaluate("window.hurt") is None
    assert tab.complaints == []


def contexts_of(tab: Tab, latents: list[int]) -> list[str]:
    texts = []
    for latent in latents:
        tab.evaluate(f"report.browser.choose(report.browser.data.rowOf({latent}))")
        settle(tab)
        texts.append(tab.evaluate("pane.textContent"))
    return texts


def test_a_bar_lists_the_latents_it_counts(tab: Tab) -> None:
    for column in ("density", "max_activation", "confidence", "coherence"):
        figure = f"document.querySelector('svg[data-column={column}]')"
        press_bar = (
            f"{figure}.focus(); press = (key) => {figure}.dispatchEvent(new KeyboardEvent('keydown', {{key}}))"
        )
        tab.evaluate(press_bar)
        said = tab.evaluate(f"[...{figure}.querySelectorAll('rect[data-says]')].map((bar) => bar.dataset.says)")
        for says in said:
            tab.evaluate("press('ArrowRight'); press('Enter')")
            assert tab.evaluate("readout.textContent") == says
            amount = len(tab.evaluate(SHOWN))
            assert f": {amount} " in says, f"{column}, {says}: {amount} listed"
        tab.evaluate("press('Escape')")
        assert len(tab.evaluate(SHOWN)) == D_SAE


def test_a_drag_over_a_histogram_picks_a_range(tab: Tab, contents: Contents) -> None:
    tab.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
    svg = "document.querySelector('svg[data-column=density]')"
    tab.evaluate(f"{svg}.scrollIntoView({{block: 'center'}})")
    box = tab.evaluate(
        f"(() => {{ const b = {svg}.getBoundingClientRect(); return [b.x, b.y, b.width, b.height] }})()"
    )
    y = box[1] + box[3] / 2
    for kind, share in (("mouseMoved", 0.4), ("mousePressed", 0.4), ("mouseMoved", 0.6), ("mouseReleased", 0.6)):
        pressed = {"button": "left", "clickCount": 1} if kind != "mouseMoved" else {"button": "none"}
        tab.call("Input.dispatchMouseEvent", type=kind, x=box[0] + share * box[2], y=y, **pressed)
    settle(tab)
    rows = tab.evaluate(SHOWN)
    assert 0 < len(rows) < D_SAE - len(DEAD)
    inside = contents.latents.loc[rows, "density"]
    outside = contents.latents.drop(index=rows)["density"]
    outside = outside[outside > 0]
    assert not outside.between(inside.min(), inside.max()).any()
    assert "Density" in tab.evaluate("ranges.textContent")
    tab.evaluate("ranges.querySelector('button').click()")
    settle(tab)
    assert len(tab.evaluate(SHOWN)) == D_SAE


def test_a_dot_of_the_scatter_can_be_read_and_opened(tab: Tab) -> None:
    tab.evaluate("document.querySelector('#scatter').scrollIntoView({block: 'center', behavior: 'instant'})")
    tab.evaluate("new Promise((done) => setTimeout(done, 100))")
    said = tab.evaluate("""(() => {
      const canvas = document.querySelector('#scatter canvas'), box = canvas.getBoundingClientRect();
      for (let y = box.bottom - 40; y > box.top; y -= 8) for (let x = box.left + 40; x < box.right; x += 8) {
        canvas.dispatchEvent(new PointerEvent('pointermove', { clientX: x, clientY: y, bubbles: true }));
        if (readout.hidden) continue;
        canvas.dispatchEvent(new MouseEvent('click', { clientX: x, clientY: y, bubbles: true }));
        return readout.textContent;
      }
    })()""")
    settle(tab)
    latent = re.match(r"#(\d+) ", said)
    assert latent is not None
    assert "label confidence" in said
    assert tab.evaluate("document.querySelector('#pane .card').dataset.latent") == latent[1]
    tab.evaluate("document.getElementById('scatter-y').value = 'coherence'")
    tab.evaluate("document.getElementById('scatter-y').dispatchEvent(new Event('change'))")
    tab.evaluate("new Promise((done) => setTimeout(done, 100))")
    assert f"{D_SAE - len(DEAD)} latents that fire and have a coherence" in tab.evaluate(
        "document.getElementById('scatter-says').textContent"
    )


def test_figures_can_be_read_off(tab: Tab) -> None:
    tab.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
    for svg, says in (("svg[data-points]", "tokens: "), (".drawn g.null", "PCA of equal L0: 0.521")):
        target = f"document.querySelector('{svg}')"
        tab.evaluate(f"{target}.scrollIntoView({{block: 'center'}})")
        tab.evaluate("new Promise((done) => setTimeout(done, 100))")
        x, y = tab.evaluate(
            f"(() => {{ const b = {target}.querySelector('circle')?.getBoundingClientRect() ?? {target}"
            ".getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2] })()"
        )
        tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        tab.evaluate("new Promise((done) => setTimeout(done, 50))")
        assert tab.evaluate("readout.hidden") is False
        assert says in tab.evaluate("readout.textContent")


def test_on_a_phone_a_latent_fills_the_screen_and_goes_away(tab: Tab) -> None:
    tab.shape(width=390, scheme="light")
    tab.evaluate("document.querySelector('.item').click()")
    settle(tab)
    assert tab.evaluate("Math.round(pane.getBoundingClientRect().height) === innerHeight")
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tab.evaluate("pane.querySelector('button').click()")
    settle(tab)
    assert tab.evaluate("getComputedStyle(pane).position") == "static"


def test_the_strongest_token_is_shaded_most(tab: Tab) -> None:
    opacity = "parseFloat(getComputedStyle(m).backgroundColor.split(/[,/]/).pop())"
    settle(tab)
    marks = "[...document.querySelectorAll('mark')].slice(0, 60)"
    shades = tab.evaluate(f"{marks}.map(m => [+m.style.getPropertyValue('--a'), {opacity}])")
    by_strength = sorted(shades)
    assert len({strength for strength, _ in by_strength}) > 5
    assert [opacity for _, opacity in by_strength] == sorted(opacity for _, opacity in by_strength)
