"""AMX tiles that Linux does not grant to a process: the next best kernels, the same vectors, and the reason in `doctor`."""

import errno
import hashlib
import json
import os
import subprocess
import sys

import pytest

from moembed.inference.kernels import usable_kernels

pytestmark = pytest.mark.skipif("amx" not in usable_kernels(), reason="this machine has no AMX that Linux grants")

TEXTS = ["hello", "a text of some more words", "x " * 40]
# A signal stack that has no room for tiles. glibc's own functions do not check the size, the request for tiles does.
SMALL_STACK = """
class Stack(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))
memory = ctypes.create_string_buffer(8192)
assert libc.sigaltstack(ctypes.byref(Stack(ctypes.addressof(memory), 0, 8192)), None) == 0
"""
# A filter as of a sandbox: arch_prctl(ARCH_REQ_XCOMP_PERM, ...) gives an error, everything else is allowed.
FILTER = """
import struct
def instruction(code, true, false, k): return struct.pack("<HBBI", code, true, false, k)
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
program = b"".join([
    instruction(LOAD, 0, 0, 0), instruction(EQUAL, 0, 3, 158),  # the system call's number
    instruction(LOAD, 0, 0, 16), instruction(EQUAL, 0, 1, 0x1023),  # its first argument
    instruction(RETURN, 0, 0, 0x00050000 | {error}), instruction(RETURN, 0, 0, 0x7FFF0000),
])
class Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))
NO_NEW_PRIVILEGES, SECCOMP = 38, 22
assert libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
if libc.prctl(SECCOMP, 2, ctypes.byref(Filter(6, program)), 0, 0):
    sys.exit("no filters here")
"""
EMBED = """
import hashlib, warnings
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    from moembed import Embedder
    model = Embedder.from_pretrained()
    Embedder.from_pretrained()
vectors = model.encode_query({texts!r})
print(model.kernels, hashlib.sha256(vectors.tobytes()).hexdigest(), len(told))
for warning in told:
    print(type(warning.message).__name__, warning.message)
from moembed.cli import main
main(["doctor", "--json"])
"""


def _run(code: str) -> tuple[str, str, list[str], dict[str, object]]:
    """Return kernels, digest of the vectors, warnings and the report of a process that begins with `code`."""
    source = f"import ctypes, os, sys\nlibc = ctypes.CDLL(None, use_errno=True)\n{code}\n{EMBED.format(texts=TEXTS)}"
    environment = {name: value for name, value in os.environ.items() if name != "MOEMBED_KERNELS"}
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if "no filters here" in done.stderr:
        pytest.skip("this system does not let a process filter its system calls")
    assert done.returncode == 0, done.stderr
    first, _, rest = done.stdout.partition("\n")
    kernels, digest, count = first.split()
    told, report = rest.splitlines()[: int(count)], "\n".join(rest.splitlines()[int(count) :])
    return kernels, digest, told, json.loads(report)


@pytest.fixture(scope="module")
def expected(model):
    return hashlib.sha256(model.encode_query(TEXTS).tobytes()).hexdigest()


def test_granted(expected):
    assert _run("")[:3] == ("amx", expected, [])


@pytest.mark.parametrize(
    ("code", "reason", "warned"),
    [
        (SMALL_STACK, "sigaltstack", True),
        (FILTER.format(error=errno.EPERM), "sandbox or seccomp filter", True),
        (FILTER.format(error=errno.ENOSYS), "no request for AMX tiles", False),
        (FILTER.format(error=errno.EINVAL), "5.16", False),
        (FILTER.format(error=errno.EOPNOTSUPP), "does not support AMX tiles", False),
    ],
    ids=["small signal stack", "EPERM", "ENOSYS", "EINVAL", "EOPNOTSUPP"],
)
def test_a_refusal_has_its_reason(expected, code, reason, warned):
    """K03 and K08. Only this process is concerned by the first two, so it warns: another one's `doctor` shows nothing."""
    kernels, digest, told, report = _run(code)
    if kernels == "amx":
        pytest.skip("this Linux grants tiles all the same")
    assert (kernels, digest) == ("avx512vnni", expected)
    (line,) = report["refused"]
    assert line.startswith("amx: ")
    assert reason in line
    assert report["kernels"].startswith("avx512vnni, of avx512vnni")
    assert report["problems"] == []
    assert len(told) == warned
    for warning in told:
        assert warning.startswith("NativeWarning kernels 'amx' are refused to this process")
        assert reason in warning
        assert "MOEMBED_KERNELS=avx512vnni" in warning


def test_requested_by_name_and_refused():
    code = SMALL_STACK + "os.environ['MOEMBED_KERNELS'] = 'amx'\n"
    with pytest.raises(
        AssertionError, match="kernels 'amx' cannot be used, only .*: Linux refused AMX tiles: .*sigaltstack"
    ):
        _run(code)


def test_a_program_that_replaces_itself_asks_again(expected):
    """K04: exec takes the permission back, so the new program has to ask for itself."""
    code = """
if "replaced" not in os.environ:
    from moembed import Embedder
    assert Embedder.from_pretrained().kernels == "amx"
    os.environ["replaced"] = "yes"
    os.execv(sys.executable, sys.orig_argv)
"""
    assert _run(code)[:3] == ("amx", expected, [])


def test_children_of_a_pool_inherit_it(expected):
    """K04: forked before the first session and after it; each child has threads of its own."""
    code = """
import hashlib, multiprocessing
def embed(number):
    from moembed import Embedder
    model = Embedder.from_pretrained(threads=2, spin=False)
    return model.kernels, hashlib.sha256(model.encode_query(TEXTS).tobytes()).hexdigest()
TEXTS = %r
context = multiprocessing.get_context("fork")
with context.Pool(2) as pool:
    early = pool.map(embed, range(4))
here = embed(0)
with context.Pool(2) as pool:
    late = pool.map(embed, range(4))
assert {*early, *late, here} == {("amx", here[1])}, (early, late, here)
"""
    assert _run(code % TEXTS)[:3] == ("amx", expected, [])
