"""Kernels between pages that nobody may touch, with the machine's own instructions; see `guard_pages.cpp`."""

import subprocess
import sys

import pytest

from moembed.inference.kernels import usable_kernels
from support.folders import ROOT
from support.native_build import compiled

DRIVER = ROOT / "tests" / "native" / "guard_pages.cpp"


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    if sys.platform == "win32":
        pytest.skip("needs mmap")
    return compiled(DRIVER, tmp_path_factory.mktemp("guard") / "driver")


def test_no_byte_outside_a_buffer_and_no_tiles_left(driver):
    """K01, K12, K20 and K24: rows around the sizes at which kernels divide them."""
    done = subprocess.run([driver], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.split() == list(usable_kernels()[:-1])
