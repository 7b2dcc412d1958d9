"""Page in the system's headless Chromium, driven by Playwright."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESKTOP, PHONE, NARROW = ({"width": w, "height": h} for w, h in ((1280, 900), (390, 844), (320, 640)))
_FLAGS = [
    "--no-sandbox",  # the sandbox does not work as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def installed() -> str | None:
    """Return the path of the system's Chromium, or None."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


needs_browser = pytest.mark.skipif(
    installed() is None, reason="no Chromium here: apt-get install chromium, and these tests run"
)


@contextlib.contextmanager
def chromium(executable: str, *flags: str) -> Iterator[Browser]:
    """Run a browser with an empty profile."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(Path(executable)), args=[*_FLAGS, *flags])
        try:
            yield browser
        finally:
            browser.close()


class Seen:
    """Console messages and requests of a page."""

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


@contextlib.contextmanager
def opened(browser, server, *, statuses=(), **options) -> Iterator[Page]:
    """Open the server's page; finally check that it made no foreign request and logged nothing but errors with `statuses`."""
    context = browser.new_context(**{"viewport": DESKTOP} | options)
    page = context.new_page()
    page.set_default_timeout(10_000)
    seen = page.seen = Seen(page, server.url)
    try:
        page.goto(f"{server.url}/")
        yield page
        assert seen.foreign == []
        assert [text for text in seen.console if not any(f"status of {code}" in text for code in statuses)] == []
        assert context.cookies() == []
        assert page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]
    finally:
        context.close()


def until(page, script, argument=None, seconds=10):
    """Wait until a script returns true; Playwright's own function is blocked by the page's Content-Security-Policy."""
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


def violations(page):
    found = Axe().run(page).response["violations"]
    return [(v["id"], [node["html"][:120] for node in v["nodes"][:3]]) for v in found]
