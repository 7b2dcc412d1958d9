"""The native operators on tensors that no graph of ours gives them: an error or a result, never a byte too far.

`pytest -m sanitize` runs this with every address and every undefined behaviour checked.
"""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from moembed.inference.kernels import usable_kernels
from support.graph_ops import run_graph
from support.op_inputs import MAKERS
from support.repeatable import repeatable

NATIVE = usable_kernels()[:-1]
pytestmark = pytest.mark.skipif(not NATIVE, reason="the native library was not compiled")
FLOATS = (np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45, -0.0, 0.0, 1.0)
ATTRIBUTES = {
    "zero_point": (0, 255, 256, -1, 2**63 - 1, -(2**63)),
    "top_k": (0, -1, 1, 2, 99, 2**63 - 1, -(2**63)),
    "num_heads": (0, -1, 1, 2, 7, 2**16, 2**16 + 1, 2**63 - 1, -(2**63)),
    "epsilon": (0.0, -1.0, float("nan"), float("inf"), 3e38),
}
SIZES = (0, 1, 2, 3, 5, 16, 17, 33, 100)


def _extremes(dtype):
    if dtype.kind == "f":
        return st.sampled_from(FLOATS)
    info = np.iinfo(dtype)
    return st.sampled_from(
        sorted({info.min, info.max, 0, 1, 2, 7, info.min + 1, info.max // 2, 31, -1 % (info.max + 1)})
    )


def _sprinkled(draw, array):
    """The array with extreme values in some places, or in all."""
    array = np.array(array)
    with np.errstate(over="ignore"):  # float16 has no 3.4e38
        if draw(st.booleans()):
            array.fill(np.array(draw(_extremes(array.dtype))).astype(array.dtype))
        elif array.size:
            for place in draw(st.lists(st.integers(0, array.size - 1), min_size=1, max_size=4)):
                array.flat[place] = np.array(draw(_extremes(array.dtype))).astype(array.dtype)
    return array


def _resized(draw, array):
    """The array with another size along one axis; a dimension without end where there is nothing in it."""
    shape = list(array.shape)
    axis = draw(st.integers(0, len(shape) - 1))
    shape[axis] = draw(st.sampled_from(SIZES))
    if shape[axis] == 0 and len(shape) > 1 and draw(st.booleans()):
        shape[axis - 1] = 2**40
        return np.empty(shape, array.dtype)
    return np.resize(array, shape) if np.prod(shape, dtype=float) < 1e6 else array


def _moved(draw, array):
    return np.ascontiguousarray(array[::-1])


@st.composite
def calls(draw):
    """An operator with arrays and attributes of which at least one is hostile."""
    rng = np.random.default_rng(draw(st.integers(0, 50)))
    cases = MAKERS[draw(st.sampled_from(sorted(MAKERS)))](rng, draw(st.sampled_from((0, 1, 3, 17))))
    op, arrays, attributes = cases[draw(st.integers(0, len(cases) - 1))]
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(arrays) - 1))
        change = draw(st.sampled_from((_sprinkled, _sprinkled, _resized, _moved)))
        arrays = [change(draw, a) if index == place else a for index, a in enumerate(arrays)]
    if attributes and draw(st.integers(0, 3)) == 0:
        name = draw(st.sampled_from(sorted(attributes)))
        attributes = attributes | {name: draw(st.sampled_from(ATTRIBUTES[name]))}
    if draw(st.integers(0, 9)) == 0 and op == "Int8Experts":
        arrays = arrays[: 7 + 2 * draw(st.integers(1, 5))]
    return op, arrays, attributes


def tried(examples):
    """How many calls ended in a result and how many in an error."""
    outcomes = {"result": 0, "error": 0}

    @repeatable(examples)
    @hypothesis.given(calls(), st.sampled_from(NATIVE), st.sampled_from((1, 3)))
    def one(call, kernels, threads):
        op, arrays, attributes = call
        try:
            found = run_graph(op, arrays, attributes, kernels=kernels, threads=threads)
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            if "ONNXRuntimeError" not in str(error):
                raise
            outcomes["error"] += 1
            return
        outcomes["result"] += 1
        # What was not computed would differ.
        again = run_graph(op, arrays, attributes, kernels=kernels, threads=threads)
        assert [a.tobytes() for a in again] == [a.tobytes() for a in found], op
        if op == "Router":
            assert ((found[1] >= 0) & (found[1] < len(arrays[1]))).all()

    one()
    return outcomes


def test_some_hostile_tensors():
    outcomes = tried(60)
    assert min(outcomes.values()) > 8, outcomes


@pytest.mark.long
def test_many_hostile_tensors(count):
    print(tried(count))


@pytest.mark.parametrize(
    ("op", "shapes", "attributes"),
    [
        ("Int4Embedding", [(1,), (0, 2**62), (0, 2**58), *[(32,)] * 4], {"epsilon": 1e-5}),
        ("Attention", [(0, 48), (0,), (1, 0), (0, 2**60), (0, 2**60)], {"num_heads": 2}),
        ("Attention", [(0, 48), (0,), (0, 2**60), (4, 8), (4, 8)], {"num_heads": 1}),
        ("Pool", [(0, 2**60), (0,), (0, 4)], {}),
        ("Pool", [(0, 4), (0,), (2**61, 0)], {}),
        ("Router", [(2, 0), (5, 0)], {"top_k": 2}),
        ("Quantize", [(0, 2**61)], {}),
        ("Quantize", [(7, 0)], {}),
        ("AddNorm", [(3, 0), (3, 0), (0,), (0,)], {"epsilon": 1e-5}),
    ],
)
def test_sizes_whose_products_overflow(op, shapes, attributes):
    integers = {"Attention": (1, 2), "Pool": (1, 2), "Int4Embedding": (0,)}.get(op, ())
    types = {(op, index): np.int64 for index in integers}
    types |= {("Int4Embedding", 1): np.uint8, ("Int4Embedding", 2): np.float16}
    try:
        arrays = [np.empty(shape, types.get((op, index), np.float32)) for index, shape in enumerate(shapes)]
    except ValueError:
        pytest.skip("this numpy holds no such shape")
    for kernels in NATIVE:
        try:
            run_graph(op, arrays, attributes, kernels=kernels)
        except Exception as error:
            if "ONNXRuntimeError" not in str(error):
                raise
