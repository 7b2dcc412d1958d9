"""The page in headless Chromium, against a real server; its numbers are those of `Embedder`."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

from browser import chromium, installed
from serving import serving

needs_browser = pytest.mark.skipif(
    installed() is None, reason="no Chromium here: apt-get install chromium, and these tests run"
)
pytestmark = needs_browser

TEXTS = [
    "The cat sleeps on the sofa.",
    "Die Katze schläft auf dem Sofa.",
    "Paris is the capital of France.",
    "骆驼很酷 👍🏽",
    "the cat is sleeping",
]
QUESTION = "Where do cats rest?"
HOSTILE = [
    "<img src=x onerror=window.hacked=1>",
    "</textarea><script>window.hacked=1</script>",
    "\"'><svg onload=window.hacked=1>",
    "{{constructor.constructor('window.hacked=1')()}}",
    "javascript:window.hacked=1",
    "\u202egnirts a\u0000 \u0007",
    "&lt;b&gt; &amp;amp; %3Cb%3E",
    "__proto__",
]
DESKTOP, PHONE, NARROW = ({"width": w, "height": h} for w, h in ((1280, 900), (390, 844), (320, 640)))
TOLERANCE = 1e-6  # sums of float32 products in another order
LONG = "all work and no play makes Jack a dull boy. " * 120


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    with chromium(installed()) as running:
        yield running


class Seen:
    """What a page did that it should not."""

    def __init__(self, page, url):
        self.console, self.foreign, self.metrics = [], [], 0
        page.on(
            "console",
            lambda message: self.console.append(message.text) if message.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: self.console.append(str(error)))

        def requested(request):
            self.metrics += request.url.endswith("/metrics")
            if not request.url.startswith(url + "/"):
                self.foreign.append(request.url)

        page.on("request", requested)


@contextmanager
def opened(browser, server, *, refusals=(), **options) -> Iterator:
    """A page of the server, ready; nothing may leave its origin, and nothing be said on its console but `refusals`."""
    context = browser.new_context(**{"viewport": DESKTOP} | options)
    page = context.new_page()
    page.set_default_timeout(10_000)
    seen = page.seen = Seen(page, server.url)
    try:
        page.goto(f"{server.url}/")
        yield page
        assert seen.foreign == []
        assert [text for text in seen.console if not any(f"status of {code}" in text for code in refusals)] == []
        assert context.cookies() == []
        assert page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]
    finally:
        context.close()


@pytest.fixture
def page(browser, server):
    with opened(browser, server) as page:
        page.wait_for_selector("#load td")
        yield page


def until(page, script, argument=None, seconds=10):
    """Wait until a script is true; Playwright's own way of waiting is stopped by the page's policy, as it should be."""
    end = time.monotonic() + seconds
    while not page.evaluate(script, argument):
        assert time.monotonic() < end, script
        page.wait_for_timeout(20)


def settled(page, words):
    until(page, "words => document.getElementById('status').textContent.includes(words)", words)
    until(page, "!document.body.hasAttribute('aria-busy')")


def embed(page, texts):
    page.fill("#texts", "\n".join(texts))
    page.click("#texts-form button")
    settled(page, f"{len(texts)} text")


def heat_map(page):
    rows = page.eval_on_selector_all(
        ".heat tbody tr",
        "rows => rows.map(row => [...row.querySelectorAll('td')].map(cell => [cell.dataset.value, cell.textContent]))",
    )
    return np.array([[float(value) for value, _ in row] for row in rows]), [[shown for _, shown in row] for row in rows]


def routes(page):
    return page.eval_on_selector_all(
        ".routes tbody tr",
        "rows => rows.map(row => [...row.querySelectorAll('td')].map(cell => [cell.dataset.experts, cell.dataset.weights]))",
    )


def same_routing(page, wanted):
    found = routes(page)
    assert len(found) == len(wanted.tokens)
    for row, cells in enumerate(found):
        assert len(cells) == len(wanted.layers)
        for column, (experts, weights) in enumerate(cells):
            assert [int(i) for i in experts.split(",")] == wanted.experts[column, row].tolist()
            assert [float(w) for w in weights.split(",")] == wanted.weights[column, row].tolist()
    loads = page.eval_on_selector_all(
        ".load tbody tr",
        "rows => rows.map(row => [...row.querySelectorAll('td')].map(cell => Number(cell.dataset.load)))",
    )
    assert loads == wanted.load.T.tolist()


def violations(page):
    found = Axe().run(page).response["violations"]
    return [(v["id"], [node["html"][:120] for node in v["nodes"][:3]]) for v in found]


def test_the_heat_map_is_embedders(page, model):
    embed(page, TEXTS)
    vectors = model.encode_document(TEXTS)
    wanted = model.similarity(vectors, vectors)
    values, shown = heat_map(page)
    assert values.shape == wanted.shape
    assert np.abs(values - wanted).max() <= TOLERANCE
    assert shown == [[f"{value:.2f}" for value in row] for row in values]
    names = page.eval_on_selector_all(".heat tbody th", "cells => cells.map(cell => cell.title)")
    assert names == TEXTS
    shares = page.eval_on_selector_all(
        ".heat tbody td", "cells => cells.map(cell => Number(cell.style.getPropertyValue('--share')))"
    )
    off = ~np.eye(len(TEXTS), dtype=bool)
    expected = (wanted - wanted[off].min()) / (wanted[off].max() - wanted[off].min())
    assert np.abs(np.array(shares).reshape(wanted.shape) - expected)[off].max() <= 1e-4, "colours follow the numbers"


def test_search_finds_in_embedders_order_with_the_prompt_of_each_side(page, model):
    embed(page, TEXTS)
    page.fill("#question", QUESTION)
    page.click("#search-form button")
    settled(page, "The most similar text")
    (wanted,) = model.similarity(model.encode_query(QUESTION), model.encode_document(TEXTS))
    found = page.eval_on_selector_all(
        "#results li", "items => items.map(item => [item.dataset.index, item.dataset.score, item.innerText])"
    )
    assert [int(index) for index, _, _ in found] == np.argsort(-wanted).tolist()
    for index, score, shown in found:
        assert abs(float(score) - wanted[int(index)]) <= TOLERANCE
        assert TEXTS[int(index)] in shown
        assert f"{float(score):.3f}" in shown


def test_the_routing_grid_is_embedders(page, model):
    embed(page, TEXTS)
    same_routing(page, model.routing(TEXTS[0], prompt_name="document"))
    page.select_option("#routed", "document 3")
    wanted = model.routing(TEXTS[3], prompt_name="document")
    pieces = [token.replace("▁", "") or "space" for token in wanted.tokens]
    read = "[...document.querySelectorAll('.routes tbody th')].map(cell => cell.textContent.replace('·', ''))"
    until(page, f"wanted => String({read}) === wanted", ",".join(pieces))
    same_routing(page, wanted)
    page.select_option("#routed", "query")
    until(page, "document.querySelector('.routes').textContent.includes('oven')")
    same_routing(page, model.routing(page.input_value("#question"), prompt_name="query"))


def test_it_says_which_model_this_is(page, browser, bundle):
    notice = page.inner_text("#provenance")
    assert "the small model inside the package" in notice
    assert "not the published nomic-embed-text-v2-moe" in notice
    assert "384 dimensions" in page.inner_text("#about")
    with serving(model=(f"other={bundle.folder}", "moembed=embedded")) as two, opened(browser, two) as page:
        page.wait_for_selector("#load td")
        assert "a local checkpoint" in page.inner_text("#provenance")
        assert page.locator(".load tbody tr").count() == 5
        page.select_option("#model", "moembed")
        until(page, "document.querySelectorAll('.load tbody tr').length === 8")
        assert "the small model inside the package" in page.inner_text("#provenance")


def test_it_works_with_the_keyboard_alone(page, model):
    def focused():
        return page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()")

    def tab(count=1):
        for _ in range(count):
            page.keyboard.press("Tab")
        return focused()

    assert tab() == "Skip to the texts"
    page.keyboard.press("Enter")
    assert focused() == "main"
    assert tab() == "texts"
    page.keyboard.press("Control+a")
    page.keyboard.type("\n".join(TEXTS[:3]))
    page.keyboard.press("Control+Enter")
    settled(page, "3 texts embedded")
    assert tab() == "Embed"
    assert tab() == "1.00", "the heat map is one stop"
    vectors = model.encode_document(TEXTS[:3])
    values = model.similarity(vectors, vectors)
    for key, row, column in (
        ("ArrowRight", 0, 1),
        ("ArrowDown", 1, 1),
        ("End", 1, 2),
        ("ArrowRight", 1, 2),
        ("Control+Home", 0, 0),
        ("Control+End", 2, 2),
        ("ArrowUp", 1, 2),
        ("Home", 1, 0),
    ):
        page.keyboard.press(key)
        read = page.inner_text("#pair")
        assert read.startswith(f"{values[row, column]:.4f}")
        assert TEXTS[row] in read
        assert TEXTS[column] in read
    assert tab() == "question"
    page.keyboard.press("Control+a")
    page.keyboard.type(QUESTION)
    page.keyboard.press("Enter")
    settled(page, "The most similar text is number")
    assert tab(2) == "routed"
    page.keyboard.press("End")
    until(page, "document.querySelector('.routes').textContent.includes('rest')")
    same_routing(page, model.routing(QUESTION, prompt_name="query"))
    tab()
    page.keyboard.press("ArrowDown")
    wanted = model.routing(QUESTION, prompt_name="query")
    read = page.inner_text("#token")
    assert f"in layer {wanted.layers[0]}: expert {wanted.experts[0, 1, 0]} with {wanted.weights[0, 1, 0]:.3f}" in read
    assert tab() == "live"
    page.keyboard.press("Space")
    assert not page.is_checked("#live")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE])
def test_axe_finds_nothing(browser, server, scheme, viewport):
    with opened(browser, server, color_scheme=scheme, viewport=viewport, refusals=[400]) as page:
        page.wait_for_selector("#load td")
        assert violations(page) == []
        page.fill("#texts", LONG)
        page.click("#texts-form button")
        page.wait_for_selector("#error:visible")
        assert violations(page) == []


@pytest.mark.parametrize("viewport", [PHONE, NARROW])
def test_a_phone_scrolls_in_one_direction(browser, server, viewport):
    with opened(browser, server, viewport=viewport, has_touch=True) as page:
        page.wait_for_selector("#load td")
        embed(page, ["a-word-without-end-" * 20, *TEXTS * 5])
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        small = page.eval_on_selector_all(
            "button, select, #question, #texts", "all => all.filter(e => e.offsetParent && e.offsetHeight < 44).length"
        )
        assert small == 0, "all can be hit with a thumb"


def test_nothing_moves_for_those_who_ask(browser, server):
    for motion, duration in (("reduce", "0s"), ("no-preference", "0.25s")):
        with opened(browser, server, reduced_motion=motion) as page:
            page.wait_for_selector("#load td")
            assert page.eval_on_selector(".bar-of", "bar => getComputedStyle(bar).transitionDuration") == duration


def test_texts_are_text_and_nothing_else(page):
    page.fill("#question", HOSTILE[0])
    embed(page, HOSTILE)
    page.click("#search-form button")
    settled(page, "The most similar text")
    typed = [line.strip() for line in page.input_value("#texts").split("\n")]
    assert sorted(page.eval_on_selector_all("#results .found", "all => all.map(e => e.textContent)")) == sorted(typed)
    for choice in [f"document {i}" for i in range(len(HOSTILE))] + ["query"]:
        page.select_option("#routed", choice)
        until(page, "!document.body.hasAttribute('aria-busy')")
    page.hover(".heat tbody tr:first-child td:last-child")
    assert HOSTILE[0] in page.inner_text("#pair")
    assert page.evaluate("typeof window.hacked") == "undefined"
    assert page.locator("img, svg, iframe, script:not([src]), main b > *").count() == 0


def test_the_policy_stops_what_escapes(browser, server):
    with opened(browser, server) as page:
        page.wait_for_selector("#load td")
        refused = page.evaluate(
            "() => { try { document.body.innerHTML = '<img src=x>'; return 'parsed'; } catch (e) { return e.name; } }"
        )
        assert refused == "TypeError"
        assert page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'stopped')") == "stopped"
        assert any("Content Security Policy" in text for text in page.seen.console)
        page.seen.console.clear()
        page.seen.foreign.clear()  # asked for by this test, refused by the policy


def test_the_servers_own_words(browser, server):
    with opened(browser, server, refusals=[400]) as page:
        page.wait_for_selector("#load td")
        page.fill("#texts", LONG)
        page.click("#texts-form button")
        page.wait_for_selector("#error:visible")
        wanted = server.post(
            "/v1/embeddings", {"model": "moembed", "input": [LONG.strip()], "input_type": "document"}
        ).json
        assert page.inner_text("#error p") == wanted["error"]["message"]
        assert page.get_attribute("#error", "role") == "alert"
        embed(page, TEXTS)
        assert not page.is_visible("#error")
        for count in (0, 41):
            page.fill("#texts", "\n".join(["a"] * count))
            page.click("#texts-form button")
            settled(page, f"There are {count} texts; this page shows 1 to 40")
    with serving(max_inputs=3) as strict, opened(browser, strict, refusals=[422]) as page:
        page.wait_for_selector("#error:visible")
        assert "8 texts in one request; this server takes 3 at most" in page.inner_text("#error")


def test_a_server_that_went_away(browser):
    with serving() as server:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{server.url}/")
        page.wait_for_selector("#load td")
        page.uncheck("#live")
    page.click("#texts-form button")
    page.wait_for_selector("#error:visible")
    assert "does not answer" in page.inner_text("#error")
    context.close()


def test_an_api_key_is_asked_for_and_kept_nowhere(browser):
    with serving(api_keys=("open sesame",)) as server, opened(browser, server, refusals=[401]) as page:
        page.wait_for_selector("#error:visible")
        assert "send one as the header Authorization: Bearer KEY" in page.inner_text("#error")
        assert violations(page) == []
        page.fill("#key", "wrong")
        page.keyboard.press("Enter")
        until(page, "document.getElementById('key').value === ''")
        page.wait_for_selector("#error:visible")
        page.fill("#key", "open sesame")
        page.keyboard.press("Enter")
        page.wait_for_selector("#load td")
        assert not page.is_visible("#key-form")
        assert not page.is_visible("#error")
        page.wait_for_selector("#figure-requests")
        assert "sesame" not in page.url + page.content()
        page.reload()
        page.wait_for_selector("#key-form:visible")


def test_live_figures_are_the_servers(page, server):
    until(page, "document.getElementById('figure-tokens')?.textContent > '0'")
    page.uncheck("#live")
    page.wait_for_timeout(100)
    seen = page.seen.metrics
    embed(page, TEXTS)
    page.wait_for_timeout(2_500)
    assert page.seen.metrics == seen, "switched off it does not ask"
    page.check("#live")
    worked = sum(
        server.figure("moembed_requests_total", endpoint=endpoint) for endpoint in ("/v1/embeddings", "/routing")
    )
    until(page, "n => document.getElementById('figure-requests').textContent === n.toLocaleString('en')", worked)
    assert page.inner_text("#figure-queue") == "0"
    assert page.inner_text("#figure-p50").endswith(" ms")


def test_quantiles_are_those_of_prometheus(page):
    def wanted(share, counts):
        edges, total = [0.01, 0.1, 1.0], sum(counts)
        below, lower = 0, 0.0
        for edge, count in zip(edges, counts, strict=False):
            if below + count >= share * total:
                return lower + (edge - lower) * (share * total - below) / count
            below, lower = below + count, edge
        return lower

    script = """async ([share, before, after]) =>
        (await import('/static/figures.js')).quantile(share, new Map(before), new Map(after))"""
    for counts in ([5, 3, 2, 0], [0, 10, 0, 0], [1, 1, 1, 7], [100, 0, 0, 1]):
        before = [7, 9, 9, 12]
        after = (np.cumsum(counts) + before).tolist()
        names = ["0.01", "0.1", "1.0", "+Inf"]
        pairs = [[list(pair) for pair in zip(names, numbers, strict=True)] for numbers in (before, after)]
        for share in (0.5, 0.9, 0.99):
            assert page.evaluate(script, [share, *pairs]) == pytest.approx(wanted(share, counts))
    assert json.dumps(page.evaluate(script, [0.5, [], []])) == "NaN"
