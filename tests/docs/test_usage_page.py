"""The page about the Python face is true: its code runs."""

import re

from support.folders import ROOT

PAGE = ROOT / "docs" / "usage.md"


def test_the_code_of_the_usage_page_runs(capsys):
    names = {}
    for code in re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        exec(compile(code, PAGE.name, "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert [line.rpartition(" ")[0] for line in printed[:2]] == ["0 (384,)", "1 (384,)"]
    assert len(printed) == 4, "the spans of the windows and the similarities"
