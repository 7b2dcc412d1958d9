"""docs/files.md lists the exit codes that the help lists."""

import re

from moembed.cli import parser
from support.pages import page


def test_its_exit_codes_are_those_of_the_help():
    text = page("docs/files.md").text.replace("`", "")
    codes = re.findall(r"^  (\d+) +(.*)$", parser().epilog, re.MULTILINE)
    assert len(codes) > 3
    for code, meaning in codes:
        assert re.search(rf"^\| {code} \| {re.escape(meaning)} \|$", text, re.MULTILINE), (code, meaning)
