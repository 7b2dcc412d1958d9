"""Other processors, under qemu-user: `pytest -m emulation`. `emulation/sysroot.py` makes the aarch64 system, once.

Integer products are the same everywhere. Float32 functions of ONNX Runtime differ between kinds of processors in the last bit,
and where that changes a quantized value, others follow. So vectors have the same bytes on one processor, and are close on others.
"""

import json
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emulation.processors import HASWELL, PROCESSORS
from emulation.sysroot import SysrootError
from moembed import Embedder
from moembed.export.functions import DOMAIN, IR_VERSION, OPSET, VERSION
from moembed.inference.kernels import PORTABLE, VARIABLE, usable_kernels
from moembed.quantize.functions import int8_functions
from moembed.quantize.layout import pack
from support.tolerances import PROCESSORS_MIN_COSINE

pytestmark = pytest.mark.emulation
TEXTS = [
    "hello",
    "骆驼很酷",
    "How do I run it on a GPU?",
    "Die Brücke wurde 1902 aus Sandstein gebaut.",
    "كم عدد اللغات؟",
]

_EMBED = """
import json, sys
from moembed import Embedder
from moembed.inference import cpu
folder, *texts = sys.argv[1:]
alone, together = (Embedder.from_pretrained(folder, threads=threads) for threads in (1, 2))
vectors = b"".join(alone.encode_query(text).tobytes() for text in texts)
print(json.dumps({
    "instructions": cpu.instruction_sets(),
    "saturates": cpu.saturates(),
    "vectors": vectors.hex(),
    "together": together.encode_query(texts[::-1])[::-1].tobytes().hex(),
}))
"""

_CARELESS = """
from moembed.inference import session
session.saturates = lambda: False
"""

_PRODUCTS = """
import sys
import numpy as np, onnxruntime as ort
from moembed.inference.session import session_options
model, inputs, output = sys.argv[1:]
session = ort.InferenceSession(model, session_options(), providers=["CPUExecutionProvider"])
np.save(output, session.run(None, dict(np.load(inputs)))[0])
"""
_SEEN = {}


@pytest.fixture(autouse=True)
def _portable(monkeypatch):
    """ONNX Runtime's own arithmetic, here and there; the last test is about ours."""
    monkeypatch.setenv(VARIABLE, PORTABLE)


@pytest.fixture(params=["small", "built-in"])
def any_bundle(request, int8, model):
    return {"small": int8, "built-in": model.bundle}[request.param]


@pytest.fixture
def run(tmp_path):
    def run(processor, script, *arguments):
        try:
            return processor.run(script, *map(str, arguments), scratch=Path(mkdtemp(dir=tmp_path)))
        except (FileNotFoundError, SysrootError) as error:
            pytest.skip(str(error))

    return run


def computed(run, processor, bundle):
    """Return what the processor computes for the texts; computed once."""
    key = processor, bundle.fingerprint
    if key not in _SEEN:
        _SEEN[key] = _computed(run, processor, bundle)
    return _SEEN[key]


def _computed(run, processor, bundle):
    told = json.loads(run(processor, _EMBED, bundle.folder, *TEXTS))
    return told | {name: bytes.fromhex(told[name]) for name in ("vectors", "together")}


def vectors_of(data):
    return np.frombuffer(data, np.float32).reshape(len(TEXTS), -1).astype(np.float64)


@pytest.mark.parametrize("processor", PROCESSORS, ids=lambda p: p.cpu)
def test_vectors_are_close_to_those_of_this_machine(run, processor, any_bundle):
    told = computed(run, processor, any_bundle)
    assert told["instructions"] == list(processor.instructions)
    assert told["saturates"] == (processor.machine == "x86_64")
    found, native = vectors_of(told["vectors"]), vectors_of(Embedder(any_bundle).encode_query(TEXTS).tobytes())
    cosines = (found * native).sum(axis=1)
    print(f"{processor.cpu}: cosines {cosines.round(7).tolist()}, max-abs {np.abs(found - native).max():.1e}")
    assert cosines.min() >= PROCESSORS_MIN_COSINE


@pytest.mark.parametrize("processor", PROCESSORS, ids=lambda p: p.cpu)
def test_bytes_do_not_depend_on_the_batch_composition(run, processor, any_bundle):
    told = computed(run, processor, any_bundle)
    assert told["vectors"] == told["together"], "alone on one thread, and together on two"


def test_without_the_widening_vectors_would_differ(run, int8):
    careful = computed(run, HASWELL, int8)
    assert careful["saturates"]
    careless = json.loads(run(HASWELL, _CARELESS + _EMBED, int8.folder, *TEXTS))
    assert bytes.fromhex(careless["vectors"]) != careful["vectors"]


@pytest.mark.parametrize("processor", PROCESSORS, ids=lambda p: p.cpu)
def test_integer_products_are_exact(run, processor, tmp_path):
    """Random values, and those whose pairs of products overflow 16 bits."""
    rng = np.random.default_rng(0)
    quantized = rng.integers(0, 256, (9, 256)).astype(np.uint8)
    quantized[0], quantized[1] = 255, 1
    matrix = rng.integers(-127, 128, (48, 256)).astype(np.int8)
    matrix[0], matrix[1] = 127, -127
    model, inputs, output = (tmp_path / name for name in ("product.onnx", "inputs.npz", "output.npy"))
    given = {"quantized": quantized, "scale": np.ones((9, 1), np.float32)}
    # Constants, as in a bundle: ONNX Runtime widens only those.
    weights = {"weight": pack(matrix), "weight_scale": np.ones(48, np.float32), "bias": np.zeros(48, np.float32)}
    kinds = ((TensorProto.UINT8, [9, 256]), (TensorProto.FLOAT, [9, 1]))
    graph = helper.make_graph(
        [helper.make_node("Int8Linear", [*given, *weights], ["y"], domain=DOMAIN, zero_point=128)],
        "product",
        [helper.make_tensor_value_info(name, *kind) for name, kind in zip(given, kinds, strict=True)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [9, 48])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    function = next(f for f in int8_functions(2) if f.name == "Int8Linear")
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)]
    onnx.save(helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=IR_VERSION), model)
    np.savez(inputs, **given)
    run(processor, _PRODUCTS, model, inputs, output)
    assert np.array_equal(np.load(output), (quantized.astype(np.int64) - 128) @ matrix.T.astype(np.int64))


def test_kernels_give_the_same_bytes(run, any_bundle, monkeypatch):
    if "avx2" not in usable_kernels():
        pytest.skip("the native library was not compiled, or not for x86")
    monkeypatch.setenv(VARIABLE, "avx2")
    told = _computed(run, HASWELL, any_bundle)
    monkeypatch.delenv(VARIABLE)
    assert told["vectors"] == told["together"] == Embedder(any_bundle).encode_query(TEXTS).tobytes()
