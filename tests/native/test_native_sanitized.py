"""The native library with every address and every undefined behaviour checked: `pytest -m sanitize` (needs g++ or clang++)."""

import os
import subprocess
import sys

import pytest

from support.folders import ROOT, TESTS
from support.native_build import build

pytestmark = pytest.mark.sanitize
# The tests themselves run again, in a process that has the checking library in place of the installed one.
_SCRIPT = """
import sys
from pathlib import Path
import pytest
from moembed.native import loader as native_library
from moembed.inference import kernels
native_library.LIBRARY_FILE = kernels.LIBRARY_FILE = Path(sys.argv[1])
library = native_library.native_library()
assert library.functions is not None, library.reason
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-m", sys.argv[2], "-k", sys.argv[3], *sys.argv[4:]]))
"""
_TESTS = (
    "harm or wrong or cut or adversarial or random or code_point or small_vocabularies or threads or every_piece "
    "or last_tokens"
)


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """Run tests with the checking library in place of the installed one."""
    compiler = build.find_compiler()
    library = build.build(tmp_path_factory.mktemp("sanitized"), sanitize=True)
    # Without libstdc++ before it, libasan finds no `throw` to watch in a Python that is no C++ program.
    runtimes = [
        subprocess.run(
            [*compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libstdc++.so")
    ]
    environment = os.environ | {
        "LD_PRELOAD": " ".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",  # Python itself leaks
        "MOEMBED_FUZZ_SEEDS": os.environ.get("MOEMBED_FUZZ_SEEDS", "400"),
        "PYTHONPATH": str(TESTS),
    }

    def run(marks, names, *arguments):
        command = [sys.executable, "-c", _SCRIPT, str(library), marks, names, *arguments]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
        assert " passed" in done.stdout
        print(done.stdout)

    return run


def test_the_tokenizer_again(checked):
    names = ("test_native_tokenizer.py", "test_tokenizer_excerpts.py")
    files = [str(TESTS / "runtime" / "tokenizer" / name) for name in names]
    checked("not exhaustive", _TESTS, str(TESTS / "export" / "test_vocabulary.py"), *files)


def test_hostile_operators(checked, count):
    file = TESTS / "native" / "test_hostile_operators.py"
    checked("long or not long", "hostile or overflow", "-s", "--count", str(max(count, 400)), str(file))
