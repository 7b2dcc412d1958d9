"""docs/benchmarks.md shows what was measured of the server."""

import json

import serve_load


def test_the_page_shows_what_was_measured():
    result = json.loads(serve_load.HERE.with_suffix(".json").read_text("utf-8"))
    assert serve_load.BLOCK.shown() == serve_load.summary(result), "run serve_load.py --publish again"
    assert (
        serve_load.HERE.with_suffix(".md").read_text("utf-8") == "\n".join(serve_load.markdown(result)).rstrip() + "\n"
    )
