"""The native library with every address and every undefined behaviour checked: `pytest -m sanitize` (needs g++ or clang++)."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.sanitize
ROOT = Path(__file__).parents[1]
# The tests themselves run again, in a process that has the checking library in place of the installed one.
_SCRIPT = """
import sys
from pathlib import Path
import pytest
from moembed import native_library
native_library.LIBRARY_FILE = Path(sys.argv[1])
library = native_library.native_library()
assert library.functions is not None, library.reason
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-k", sys.argv[2], *sys.argv[3:]]))
"""
_TESTS = "harm or wrong or cut or adversarial or random or code_point or small_vocabularies or threads or every_piece"


def test_everything_again(tmp_path):
    spec = importlib.util.spec_from_file_location("moembed_native_build", ROOT / "runtime" / "native" / "build.py")
    build = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    compiler = build.find_compiler()
    library = build.build(tmp_path, sanitize=True)
    runtime = subprocess.run(
        [*compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    environment = os.environ | {
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",  # Python itself leaks
        "MOEMBED_FUZZ_SEEDS": os.environ.get("MOEMBED_FUZZ_SEEDS", "400"),
        "PYTHONPATH": str(ROOT / "tests"),
    }
    files = [str(ROOT / "tests" / name) for name in ("test_vocabulary.py", "test_native_tokenizer.py")]
    command = [sys.executable, "-c", _SCRIPT, str(library), _TESTS, *files]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert " passed" in done.stdout
