"""Threads with another rounding mode, or that count denormals as zero: the same bytes, and their own mode afterwards.

K14: a library compiled with `-ffast-math` sets it in the thread that loads it. K15: ONNX Runtime's `set_denormal_as_zero` sets it
in the thread that calls. K16: another rounding moved vectors by 1e-2.
"""

import contextlib
import ctypes
import hashlib
import itertools
import os
import platform
import subprocess
import sys
import threading

import numpy as np
import pytest

from moembed import Embedder
from moembed.errors import InputError
from moembed.inference.float_mode import DEFAULT_FLOAT_MODE
from moembed.inference.kernels import PORTABLE, VARIABLE, usable_kernels
from moembed.tokenizer.tokenizer import Tokenizer
from support import op_inputs
from support.folders import ROOT, TESTS
from support.graph_ops import forget_sessions, run_graph
from support.native_build import build, compile_for_aarch64, compiled

CHECK = ROOT / "tests" / "native" / "float_mode_check.cpp"
NATIVE = usable_kernels()[:-1]
TEXTS = ["hello", "骆驼很酷", "a longer text about bridges and rivers " * 20, "x " * 700]
# Bits of MXCSR: rounding down, up and to zero; denormal results and operands are zero.
MODES = {"down": 0x2000, "up": 0x4000, "to zero": 0x6000, "flush to zero": 0x8040, "all": 0xE040}
on_x86 = pytest.mark.skipif(
    platform.machine() != "x86_64" or not sys.platform.startswith("linux") or not NATIVE,
    reason="changes MXCSR by glibc's fenv_t of x86-64, and needs the native library",
)
every_mode = pytest.mark.parametrize("bits", MODES.values(), ids=MODES)
# Of whole models: the others are tried on every operator.
some_modes = pytest.mark.parametrize("bits", [MODES["down"], MODES["all"]], ids=["down", "all"])


def _mode(bits=None):
    """Return MXCSR without the flags of events, after setting the bits of its mode."""
    libm = ctypes.CDLL("libm.so.6")
    environment = (ctypes.c_uint32 * 8)()
    assert libm.fegetenv(environment) == 0
    if bits is not None:
        environment[7] = 0x1F80 | bits
        assert libm.fesetenv(environment) == 0
    return environment[7] & 0xFFC0


@contextlib.contextmanager
def mode(bits):
    """Another mode of this thread; the block must leave it as it was."""
    try:
        assert _mode(bits) == 0x1F80 | bits
        yield
        found = _mode()
    finally:
        _mode(0)
    assert found == 0x1F80 | bits


def _compiled(folder, *flags, **options):
    return compiled(CHECK, folder / "check", "-O2", *flags, only={"x86"}, **options)


def test_the_mode_is_set_and_restored(tmp_path):
    assert subprocess.run([_compiled(tmp_path)], capture_output=True, text=True, check=False).stdout == "ok\n"


@pytest.mark.emulation
def test_the_mode_is_set_and_restored_on_aarch64(tmp_path, monkeypatch):
    compile_for_aarch64(monkeypatch)
    program = _compiled(tmp_path, "-static", target=build.Target("linux", "aarch64"))
    done = subprocess.run(["qemu-aarch64", program], capture_output=True, text=True, check=False)
    assert done.stdout == "ok\n"


def _embedded(bundle, threads):
    """Everything that a caller can get, from a session that is opened in this thread."""
    model = Embedder(bundle, threads=threads, spin=False)
    dim = model.dim // 16 * 8
    return (
        model.encode(TEXTS[:3], prompt="").tobytes(),
        model.encode(TEXTS, prompt="", overlong="mean", truncate_dim=dim).tobytes(),
        model.encode(TEXTS[:3], prompt="", truncate_dim=dim, precision="int8").tobytes(),
        model.encode(TEXTS[:3], prompt="", precision="float16").tobytes(),
        b"".join(states.tobytes() for states in model.token_embeddings(TEXTS[:3], prompt="")),
        b"".join(found.vector.tobytes() for found in model.embed(TEXTS, prompt="", overlong="chunk")),
        np.asarray(model.routing(TEXTS[2], prompt="").weights).tobytes(),
    )


def _assert_mode_is_ignored(bundle, bits, expected):
    with mode(bits):
        found = [(_mode(), _embedded(bundle, 1))]
        other = threading.Thread(target=lambda: found.append((_mode(), _embedded(bundle, 2))))  # it inherits the mode
        other.start()
        other.join()
    assert found == [(0x1F80 | bits, expected)] * 2


@pytest.fixture(scope="module")
def expected(model):
    """What the built-in model gives in the default mode."""
    return _embedded(model.bundle, 2)


@on_x86
@some_modes
def test_vectors_do_not_depend_on_the_thread(model, expected, bits):
    _assert_mode_is_ignored(model.bundle, bits, expected)


@on_x86
@pytest.mark.parametrize(
    "bits", [pytest.param(MODES["down"], marks=pytest.mark.long), MODES["all"]], ids=["down", "all"]
)
def test_vectors_of_functions_do_not_depend_on_the_thread(int8, monkeypatch, bits):
    """ONNX Runtime's own operators."""
    monkeypatch.setenv(VARIABLE, PORTABLE)
    _assert_mode_is_ignored(int8, bits, _embedded(int8, 2))


def _operators(scale):
    """Operators whose first input is scaled, if it is float: very small values give denormals on the way."""
    for make in op_inputs.MAKERS.values():
        for op, (first, *others), attributes in make(np.random.default_rng(1), 97):
            if first.dtype == np.float32:
                yield op, [first * np.float32(scale), *others], attributes
            elif scale == 1:
                yield op, [first, *others], attributes


@pytest.fixture
def new_sessions():
    """No session of an earlier test is used, whose threads have another mode, and none stays."""
    forget_sessions()
    yield
    forget_sessions()


@on_x86
@every_mode
def test_operators_do_not_depend_on_the_thread(new_sessions, bits):
    """Without Python around them: in the calling thread and in those of a session that was opened in it."""
    for scale, name in itertools.product((1, 1e-38, 1e-42), (NATIVE[0], "plain")):
        for op, arrays, attributes in _operators(scale):
            expected = run_graph(op, arrays, attributes, kernels=name, threads=1)
            with mode(bits):
                # 3 threads: a session of its own, whose threads inherit the mode
                found = [run_graph(op, arrays, attributes, kernels=name, threads=threads) for threads in (1, 3)]
            for outputs in found:
                assert [a.tobytes() for a in outputs] == [a.tobytes() for a in expected], (op, name, scale)


@on_x86
def test_an_error_restores_the_mode(model):
    (_, arrays, attributes), *_ = op_inputs.linear(np.random.default_rng(0), 5)
    with mode(0x6000), pytest.raises(Exception, match="quantized has"):
        run_graph("Int8Linear", [arrays[0][:, :-1], *arrays[1:]], attributes, kernels="plain")
    with mode(0x6000), pytest.raises(InputError):
        model.encode("x", prompt="", truncate_dim=0)
    with mode(0x6000), pytest.raises(ZeroDivisionError), DEFAULT_FLOAT_MODE, DEFAULT_FLOAT_MODE:
        raise ZeroDivisionError


@on_x86
@pytest.mark.parametrize("bits", [0x2000, 0x4000, 0x6000], ids=["down", "up", "to zero"])
def test_tokens_do_not_depend_on_the_thread(model, bits):
    """Sums of scores decide between segmentations. Those of a repeated character differ by their rounding only."""
    tokenizer = Tokenizer(model.bundle, backend="native")
    texts = [part * count for part in ("i", "tz", "zt", "959", "a", "哈") for count in range(3, 80)]
    expected = [ids.tolist() for ids in tokenizer.encode(texts)]
    with mode(bits):
        assert [ids.tolist() for ids in tokenizer.encode(texts)] == expected


@on_x86
def test_after_a_session_that_counts_denormals_as_zero(expected):
    """K15: the first session of a process changes the calling thread too, and leaves it so."""
    script = """
import sys
import numpy as np, onnxruntime
from onnx import TensorProto, helper
from native.test_float_mode import _embedded, _mode
value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in ("x", "y")]
graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "sum", value[:1], value[1:])
opsets = [helper.make_opsetid("", 17)]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 2
options.add_session_config_entry("session.set_denormal_as_zero", "1")
content = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
other = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
other.run(None, {"x": np.full(1000, 1e-40, np.float32)})
before = _mode()
from moembed.pull.opening import open_bundle
digest = hashlib.sha256(b"".join(_embedded(open_bundle(None), 2))).hexdigest()
print(f"{before:x} {_mode():x} {digest}")
"""
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", f"import hashlib{script}"],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["9fc0", "9fc0", hashlib.sha256(b"".join(expected)).hexdigest()]
