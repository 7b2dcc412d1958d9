"""docs/benchmarks.md shows what was measured of the server, for each kind of machine."""

import serve_load
from published import kind_of


def test_the_page_shows_what_was_measured():
    assert serve_load.BLOCK.shown() == serve_load.page_block(), "run serve_load.py --publish again"
    found = serve_load.published()
    assert found
    for kind, result in found.items():
        assert kind == kind_of(result)
        path = serve_load.HERE / f"{kind}.md"
        assert path.read_text("utf-8") == "\n".join(serve_load.markdown(result)).rstrip() + "\n"
