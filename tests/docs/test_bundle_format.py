"""docs/bundle-format.md is what the docstrings say."""

import runpy

from moembed.bundle.manifest import FORMAT
from support.folders import ROOT
from support.pages import page

WRITER = runpy.run_path(str(ROOT / ".ci" / "bundle_format.py"))


def test_the_page_is_current():
    assert WRITER["PAGE"].read_text("utf-8") == WRITER["page"](), "python .ci/bundle_format.py writes it"


def test_the_page_about_compatibility_names_the_format():
    assert f"writes and reads `format` {FORMAT} in `moembed.json`" in page("docs/compatibility.md").text


def test_every_operator_has_its_shapes():
    text = WRITER["page"]()
    described = " ".join(line.partition(":")[0] for line in text.splitlines() if line.startswith("- `"))
    for line in text.splitlines():
        if line.startswith("| `") and line.count("|") == 5 and line.split("|")[1].strip().strip("`")[0].isupper():
            assert line.split("|")[1].strip() in described, line
