"""Screenshot of the page for the README: `PYTHONPATH=tests python tests/support/screenshot.py` writes docs/page.png."""

import sys
from pathlib import Path

from PIL import Image

from support.browser import chromium, installed
from support.serving import serving

_PICTURE = Path(__file__).parents[2] / "docs" / "page.png"
_WIDTH, _MOST_BYTES = 1180, 200_000


def main() -> None:
    """Take the screenshot."""
    executable = installed() or sys.exit("no Chromium here: apt-get install chromium")
    _PICTURE.parent.mkdir(exist_ok=True)
    with serving() as server, chromium(executable) as browser:
        page = browser.new_page(viewport={"width": _WIDTH, "height": 900}, color_scheme="light")
        page.goto(f"{server.url}/")
        page.wait_for_selector("#load td")
        page.click("#search-form button")
        page.hover(".routes tbody tr:nth-child(7) td:nth-child(2)")
        page.wait_for_timeout(4_500)  # rates need two samples
        page.set_viewport_size({"width": _WIDTH, "height": page.evaluate("document.documentElement.scrollHeight")})
        page.wait_for_timeout(500)
        page.screenshot(path=_PICTURE)
    with Image.open(_PICTURE) as picture:
        picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(_PICTURE, optimize=True)
    size = _PICTURE.stat().st_size
    print(f"{_PICTURE.name}: {size:,} bytes")
    if size > _MOST_BYTES:
        sys.exit(f"the screenshot exceeds {_MOST_BYTES:,} bytes")


if __name__ == "__main__":
    main()
