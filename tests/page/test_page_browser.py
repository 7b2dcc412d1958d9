"""Page in headless Chromium, against a real server, compared with `Embedder`."""

import json

import numpy as np
import pytest

from support.browser import embed, needs_browser, opened, settled, until
from support.serving import serving

pytestmark = needs_browser

TEXTS = [
    "The cat sleeps on the sofa.",
    "Die Katze schläft auf dem Sofa.",
    "Paris is the capital of France.",
    "骆驼很酷 👍🏽",
    "the cat is sleeping",
]
QUESTION = "Where do cats rest?"
TOLERANCE = 1e-6  # float32 sums in another order
LONG = "all work and no play makes Jack a dull boy. " * 120


@pytest.fixture
def page(browser, server):
    with opened(browser, server) as page:
        page.wait_for_selector("#load td")
        yield page


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
            assert np.array(weights.split(","), np.float32).tobytes() == wanted.weights[column, row].tobytes()
    loads = page.eval_on_selector_all(
        ".load tbody tr",
        "rows => rows.map(row => [...row.querySelectorAll('td')].map(cell => Number(cell.dataset.load)))",
    )
    assert loads == wanted.load.T.tolist()


def test_heat_map_matches_embedder(page, model):
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
        ".heat tbody td", "cells => cells.map(cell => Number(cell.style.getPropertyValue('--fraction')))"
    )
    off = ~np.eye(len(TEXTS), dtype=bool)
    expected = (wanted - wanted[off].min()) / (wanted[off].max() - wanted[off].min())
    assert np.abs(np.array(shares).reshape(wanted.shape) - expected)[off].max() <= 1e-4, "colours match the numbers"


def test_search_matches_embedder_with_both_prompts(page, model):
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


def test_routing_grid_matches_embedder(page, model):
    embed(page, TEXTS)
    same_routing(page, model.routing(TEXTS[0], prompt_name="document"))
    page.select_option("#routing-text", "document 3")
    question = page.input_value("#question")
    for option, text, prompt in (("document 3", TEXTS[3], "document"), ("query", question, "query")):
        page.select_option("#routing-text", option)
        wanted = model.routing(text, prompt_name=prompt)
        pieces = [token.replace("▁", "") or "space" for token in wanted.tokens]
        read = "[...document.querySelectorAll('.routes tbody th')].map(cell => cell.textContent.replace('·', ''))"
        until(page, f"wanted => String({read}) === wanted", ",".join(pieces))
        same_routing(page, wanted)


def test_page_describes_the_model(page, browser, bundle):
    notice = page.inner_text("#provenance")
    assert "the small built-in model" in notice
    assert "not the published nomic-embed-text-v2-moe" in notice
    assert "384 dimensions" in page.inner_text("#about")
    with serving(model=(f"other={bundle.folder}", "moembed=built-in")) as two, opened(browser, two) as page:
        page.wait_for_selector("#load td")
        assert "a local checkpoint" in page.inner_text("#provenance")
        assert page.locator(".load tbody tr").count() == 5
        page.select_option("#model", "moembed")
        until(page, "document.querySelectorAll('.load tbody tr').length === 8")
        assert "the small built-in model" in page.inner_text("#provenance")


def test_page_shows_the_servers_errors(browser, server):
    with opened(browser, server, statuses=[400]) as page:
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
            settled(page, f"There are {count} texts; enter 1 to 40")
    with serving(max_inputs=3) as strict, opened(browser, strict, statuses=[422]) as page:
        page.wait_for_selector("#error:visible")
        assert "the request has 8 texts; the limit is 3" in page.inner_text("#error")


def test_last_action_wins(browser, server, model):
    with opened(browser, server) as page:
        page.wait_for_selector("#load td")
        late = []
        page.route("**/v1/embeddings", lambda route: late.append(route) if not late else route.continue_())
        page.fill("#texts", "\n".join(TEXTS))
        page.click("#texts-form button")
        embed(page, TEXTS[:2])
        assert page.locator(".heat tbody tr").count() == 2
        assert page.eval_on_selector("body", "body => body.hasAttribute('aria-busy')") is False
        page.unroute_all(behavior="ignoreErrors")


def test_unreachable_server(browser):
    with serving() as server:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{server.url}/")
        page.wait_for_selector("#load td")
        page.uncheck("#live")
    page.click("#texts-form button")
    page.wait_for_selector("#error:visible")
    assert "did not respond" in page.inner_text("#error")
    context.close()


def test_live_metrics_match_the_server(page, server):
    until(page, "document.getElementById('metric-tokens')?.textContent > '0'")
    page.uncheck("#live")
    page.wait_for_timeout(100)
    seen = page.seen.metrics
    embed(page, TEXTS)
    page.wait_for_timeout(2_500)
    assert page.seen.metrics == seen, "no requests while auto-refresh is off"
    page.check("#live")
    worked = sum(
        server.metric("moembed_requests_total", endpoint=endpoint) for endpoint in ("/v1/embeddings", "/routing")
    )
    until(page, "n => document.getElementById('metric-requests').textContent === n.toLocaleString('en')", worked)
    assert page.inner_text("#metric-queue") == "0"
    assert page.inner_text("#metric-p50").endswith(" ms")


def test_quantiles_match_prometheus(page):
    def wanted(share, counts):
        edges, total = [0.01, 0.1, 1.0], sum(counts)
        below, lower = 0, 0.0
        for edge, count in zip(edges, counts, strict=False):
            if below + count >= share * total:
                return lower + (edge - lower) * (share * total - below) / count
            below, lower = below + count, edge
        return lower

    script = """async ([share, before, after]) =>
        (await import('/static/metrics.js')).quantile(share, new Map(before), new Map(after))"""
    for counts in ([5, 3, 2, 0], [0, 10, 0, 0], [1, 1, 1, 7], [100, 0, 0, 1]):
        before = [7, 9, 9, 12]
        after = (np.cumsum(counts) + before).tolist()
        names = ["0.01", "0.1", "1.0", "+Inf"]
        pairs = [[list(pair) for pair in zip(names, numbers, strict=True)] for numbers in (before, after)]
        for share in (0.5, 0.9, 0.99):
            assert page.evaluate(script, [share, *pairs]) == pytest.approx(wanted(share, counts))
    assert json.dumps(page.evaluate(script, [0.5, [], []])) == "NaN"


def test_keyboard_only(page, model):
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
    assert tab() == "1.00", "the heat map is a single tab stop"
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
    assert tab(2) == "routing-text"
    page.keyboard.press("End")
    until(page, "document.querySelector('.routes').textContent.includes('rest')")
    same_routing(page, model.routing(QUESTION, prompt_name="query"))
    tab()
    page.keyboard.press("ArrowDown")
    wanted = model.routing(QUESTION, prompt_name="query")
    read = page.inner_text("#token")
    assert (
        f"in layer {wanted.layers[0]}: expert {wanted.experts[0, 1, 0]} with weight {wanted.weights[0, 1, 0]:.3f}"
        in read
    )
    assert tab() == "live"
    page.keyboard.press("Space")
    assert not page.is_checked("#live")
