"""Kernels between pages that nobody may touch, with the machine's own instructions; see `guard_pages.cpp`."""

import subprocess
import sys

import pytest

from moembed.inference.kernels import usable_kernels
from support.folders import ROOT
from support.native_build import NATIVE, compiled

DRIVER = ROOT / "tests" / "native" / "guard_pages.cpp"


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.long)], ids=["best", "every"])
def test_no_byte_outside_a_buffer_and_no_tiles_left(tmp_path, every):
    """K01, K12, K20 and K24: rows around the sizes at which kernels divide them. Only what runs is compiled, for seconds."""
    tables = list(usable_kernels()[:-1])
    if sys.platform == "win32" or not tables:
        pytest.skip("needs mmap and the native library")
    if not every:
        tables = list(dict.fromkeys((tables[0], "plain")))
    files = {path.stem.removeprefix("isa_").replace("_", ""): path.stem for path in NATIVE.glob("kernels/isa_*.cpp")}
    needed = {"cpu", "x86", "select", *(files[name] for name in tables)}
    driver = compiled(DRIVER, tmp_path / "driver", only=needed)
    done = subprocess.run([driver], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.split() == tables
