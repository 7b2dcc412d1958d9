"""A headless Chromium of the system, driven by Playwright, which brings none of its own here."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = [
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def installed() -> str | None:
    """Where the system's Chromium is, or None."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


@contextlib.contextmanager
def chromium(executable: str) -> Iterator[Browser]:
    """A browser with an empty profile; every page of it is of its own context."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(Path(executable)), args=_FLAGS)
        try:
            yield browser
        finally:
            browser.close()
