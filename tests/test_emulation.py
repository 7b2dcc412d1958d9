"""Other processors, under qemu-user: `pytest -m emulation` (Debian: apt-get install qemu-user)."""

import shutil
import subprocess
import sys

import pytest

from moembed import Embedder
from moembed.quantize.pipeline import quantize

pytestmark = pytest.mark.emulation
TEXTS = ["hello", "骆驼很酷", "How do I run it on a GPU?"]

# An emulator shows the host's /proc/cpuinfo, so the script says what detection says on such a machine.
_SCRIPT = """
import sys
from moembed import Embedder, session
session.saturates = lambda: sys.argv[2] == "True"
print(Embedder.from_pretrained(sys.argv[1], threads=1).encode_query(sys.argv[3:]).tobytes().hex())
"""


@pytest.fixture(scope="module")
def int8(bundle, tmp_path_factory):
    return quantize(bundle, tmp_path_factory.mktemp("int8") / "bundle")


def emulated(int8, cpu, saturates):
    qemu = shutil.which("qemu-x86_64")
    assert qemu, "qemu-user is not installed"
    command = [qemu, "-cpu", cpu, sys.executable, "-c", _SCRIPT, str(int8.folder), str(saturates), *TEXTS]
    return bytes.fromhex(subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout)


@pytest.mark.parametrize("cpu", ["Haswell", "Skylake-Client"])
def test_avx2_without_vnni_gives_the_same_bytes(int8, cpu):
    assert emulated(int8, cpu, True) == Embedder(int8).encode_query(TEXTS).tobytes()


def test_without_the_widening_it_would_not(int8):
    assert emulated(int8, "Haswell", False) != Embedder(int8).encode_query(TEXTS).tobytes()
