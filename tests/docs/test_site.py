"""The pages build as a site, strictly, and without the network."""

import subprocess
import sys

import pytest

from support.folders import ROOT


def test_the_site_builds_strictly(tmp_path):
    pytest.importorskip("material", reason='needs the extra "docs"')
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert all((tmp_path / "site" / page / "index.html").exists() for page in pages)
    home = (tmp_path / "site" / "index.html").read_text("utf-8")
    assert "fonts.googleapis" not in home, "readers would load fonts from elsewhere"
