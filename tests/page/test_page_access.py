"""Access to the page: accessibility, small screens, hostile texts, API keys."""

import pytest

from support.browser import (
    DESKTOP,
    NARROW,
    PHONE,
    embed,
    needs_browser,
    opened,
    settled,
    until,
    violations,
)
from support.serving import serving

pytestmark = needs_browser

TEXTS = ["The cat sleeps on the sofa.", "Die Katze schläft auf dem Sofa.", "骆驼很酷 👍🏽"]
LONG = "all work and no play makes Jack a dull boy. " * 120
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


@pytest.mark.parametrize(
    ("viewport", "scheme"),
    [
        (DESKTOP, "light"),
        (PHONE, "dark"),
        pytest.param(DESKTOP, "dark", marks=pytest.mark.long),
        pytest.param(PHONE, "light", marks=pytest.mark.long),
    ],
)
def test_axe_reports_no_violations(browser, server, scheme, viewport):
    with opened(browser, server, color_scheme=scheme, viewport=viewport, statuses=[400]) as page:
        page.wait_for_selector("#load td")
        assert violations(page) == []
        page.fill("#texts", LONG)
        page.click("#texts-form button")
        page.wait_for_selector("#error:visible")
        assert violations(page) == []


@pytest.mark.parametrize("viewport", [PHONE, NARROW])
def test_phones_scroll_in_one_direction(browser, server, viewport):
    with opened(browser, server, viewport=viewport, has_touch=True) as page:
        page.wait_for_selector("#load td")
        embed(page, ["a-word-without-end-" * 20, *TEXTS * 9])
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        small = page.eval_on_selector_all(
            "button, select, #question, #texts", "all => all.filter(e => e.offsetParent && e.offsetHeight < 44).length"
        )
        assert small == 0, "all targets are large enough for touch"


def test_reduced_motion_is_respected(browser, server):
    for motion, duration in (("reduce", "0s"), ("no-preference", "0.25s")):
        with opened(browser, server, reduced_motion=motion) as page:
            page.wait_for_selector("#load td")
            assert page.eval_on_selector(".data-bar", "bar => getComputedStyle(bar).transitionDuration") == duration


def test_texts_are_never_parsed_as_markup(browser, server):
    with opened(browser, server) as page:
        page.wait_for_selector("#load td")
        page.fill("#question", HOSTILE[0])
        embed(page, HOSTILE)
        page.click("#search-form button")
        settled(page, "The most similar text")
        typed = [line.strip() for line in page.input_value("#texts").split("\n")]
        assert sorted(page.eval_on_selector_all("#results .found", "all => all.map(e => e.textContent)")) == sorted(
            typed
        )
        for choice in [f"document {i}" for i in range(len(HOSTILE))] + ["query"]:
            page.select_option("#routing-text", choice)
            until(page, "!document.body.hasAttribute('aria-busy')")
        page.hover(".heat tbody tr:first-child td:last-child")
        assert HOSTILE[0] in page.inner_text("#pair")
        assert page.evaluate("typeof window.hacked") == "undefined"
        assert page.locator("img, svg, iframe, script:not([src]), main b > *").count() == 0


def test_content_security_policy_stops_injected_code(browser, server):
    with opened(browser, server) as page:
        page.wait_for_selector("#load td")
        result = page.evaluate(
            "() => { try { document.body.innerHTML = '<img src=x>'; return 'parsed'; } catch (e) { return e.name; } }"
        )
        assert result == "TypeError"
        assert page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'stopped')") == "stopped"
        assert any("Content Security Policy" in text for text in page.seen.console)
        page.seen.console.clear()
        page.seen.foreign.clear()  # requested by this test, blocked by the policy


def test_api_key_is_requested_and_not_stored(browser):
    with serving(api_keys=("open sesame",)) as server, opened(browser, server, statuses=[401]) as page:
        page.wait_for_selector("#error:visible")
        assert "send one in the header Authorization: Bearer KEY" in page.inner_text("#error")
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
        page.wait_for_selector("#metric-requests")
        assert "sesame" not in page.url + page.content()
        page.reload()
        page.wait_for_selector("#key-form:visible")
