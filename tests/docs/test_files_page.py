"""docs/files.md: its shell blocks run, and its lists are those of the code."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from moembed.cli import parser
from support.folders import ROOT

PAGE = (ROOT / "docs" / "files.md").read_text("utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_its_shell_blocks_run(tmp_path):
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for block in blocks:
        done = subprocess.run(["sh", "-ec", block], cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
    again = (tmp_path / "again.jsonl").read_text()
    assert '"id": "7"' in again
    assert '"id": "x"' in again
    assert np.load(tmp_path / "one.npy").shape == (1, 384)


def test_its_exit_codes_are_those_of_the_help():
    for code, meaning in re.findall(r"^  (\d+) +(.*)$", parser().epilog, re.MULTILINE):
        assert re.search(rf"^\| {code} \| {re.escape(meaning)} \|$", PAGE.replace("`", ""), re.MULTILINE)
