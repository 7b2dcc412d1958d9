"""AMX tiles that our operators and ONNX Runtime's own products use in turns, in one thread.

K01: ONNX Runtime configures its tiles anew only if they look different, so tiles of another form that are left behind end the
process. K02: it leaves its own configured, so ours cannot be taken as configured. `test_guard_pages.py` asks the processor after
each kernel whether tiles are in use (K24).
"""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from moembed.inference.kernels import usable_kernels
from support import op_inputs
from support.graph_ops import run_graph

pytestmark = pytest.mark.skipif("amx" not in usable_kernels(), reason="this machine has no AMX that Linux grants")
ROWS = (8, 16, 32, 64)
SHAPES = ((64, 16), (256, 64), (192, 48), (260, 40))  # depth and columns


def _product(depth, columns):
    """Return a session with ONNX Runtime's product of unsigned by signed bytes, on one thread, and its input's width."""
    rng = np.random.default_rng(depth)
    weight = numpy_helper.from_array(rng.integers(-128, 128, (depth, columns)).astype(np.int8), "weight")
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "weight"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [None, depth])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [None, columns])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _own(rows):
    """Our operators on so many rows, each as a function that gives bytes."""
    cases = []
    for make in ("linear", "feed-forward", "experts", "one expert each", "texts"):
        for op, arrays, attributes in op_inputs.MAKERS[make](np.random.default_rng(rows), rows):
            if op != "Pool":
                cases.append((f"{op} of {rows} rows", op, arrays, attributes))

    def computes(op, arrays, attributes):
        return lambda: b"".join(a.tobytes() for a in run_graph(op, arrays, attributes, kernels="amx", threads=1))

    return {name: computes(*case) for name, *case in cases}


@pytest.fixture(scope="module")
def foreign():
    """ONNX Runtime's products, by name, each as a function that gives bytes; checked against NumPy."""
    found = {}
    for depth, columns in SHAPES:
        session = _product(depth, columns)
        weight = np.random.default_rng(depth).integers(-128, 128, (depth, columns))
        for rows in ROWS:
            x = np.random.default_rng(rows).integers(0, 256, (rows, depth)).astype(np.uint8)
            name = f"MatMulInteger {rows} x {depth} x {columns}"
            found[name] = lambda session=session, x=x: session.run(None, {"x": x})[0].tobytes()
            assert found[name]() == (x.astype(np.int32) @ weight.astype(np.int32)).astype(np.int32).tobytes()
    return found


@pytest.mark.parametrize("rows", [1, 5, 8, 16, 17, 31, 32, 33, 64])
def test_products_in_turns_are_those_alone(foreign, rows):
    own = _own(rows)
    expected = {name: compute() for name, compute in (own | foreign).items()}
    for name, compute in own.items():
        for other, product in foreign.items():
            assert compute() == expected[name], (name, "after", other)
            assert product() == expected[other], (other, "after", name)
