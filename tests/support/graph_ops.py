"""Execution of one op of domain `moembed` in ONNX Runtime, by its function or by native kernels."""

from functools import cache, partial

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from moembed.export.functions import DOMAIN, IR_VERSION, OPSET, VERSION, functions
from moembed.inference.kernels import PORTABLE, Kernels, usable_kernels
from moembed.inference.session import session_options
from moembed.quantize.functions import int8_functions

_TYPES = {np.dtype(t): k for t, k in ((np.float32, 1), (np.uint8, 2), (np.int8, 3), (np.int64, 7), (np.float16, 10))}
# Before 1.31, TopK of no rows divides by zero and ends the process. moembed never runs a batch without tokens.
_TOPK_DIVIDES_BY_ZERO = tuple(map(int, ort.__version__.split(".")[:2])) < (1, 31)
_OUTPUTS = {
    "expert_indices": TensorProto.INT64,
    "quantized": TensorProto.UINT8,
    "y_quantized": TensorProto.UINT8,
    "attended": TensorProto.UINT8,
}


@cache
def _session(name, kinds, attributes, experts, settings, constants, kernels, threads, scores_of_part):
    function = next(f for f in (*functions(experts), *int8_functions(experts)) if f.name == name)
    if scores_of_part is not None:
        function = _with_constant(function, "scores_of_part", scores_of_part)
    inputs = [helper.make_tensor_value_info(n, k, [None] * d) for n, (k, d) in zip(function.input, kinds, strict=True)]
    outputs = [
        helper.make_tensor_value_info(n, _OUTPUTS.get(n, TensorProto.FLOAT), [None] * 2) for n in function.output
    ]
    node = helper.make_node(name, list(function.input), list(function.output), domain=DOMAIN, **dict(attributes))
    fixed = [numpy_helper.from_array(np.frombuffer(raw, t).reshape(shape), n) for n, raw, t, shape in constants]
    names = {tensor.name for tensor in fixed}
    graph = helper.make_graph([node], name, [i for i in inputs if i.name not in names], outputs, fixed)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)]
    model = helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    options = session_options(Kernels(kernels))
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it takes ten times as long as most calls
    options.enable_cpu_mem_arena = False  # so that every tensor has its own allocation, which a sanitizer checks
    for key, value in settings:
        options.add_session_config_entry(key, value)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def forget_sessions():
    """Close the sessions that `run_graph` keeps: their threads have the floating-point mode of the first call."""
    _session.cache_clear()


def _with_constant(function, name, value):
    """Return a function whose constant of one integer has another value."""
    changed = onnx.FunctionProto()
    changed.CopyFrom(function)
    (node,) = (node for node in changed.node if list(node.output) == [name])
    node.attribute[0].ints[:] = [value]
    return changed


def run_graph(
    name, arrays, attributes, settings=(), constants=None, *, kernels=PORTABLE, threads=1, scores_of_part=None
):
    """Run an op on arrays in the order of its inputs, in a session with the options of moembed, and return its outputs.

    `constants` names the inputs that are initializers. With None, these are the int8 inputs of the functions, which are weights
    as in a bundle (without VNNI, ONNX Runtime widens constants only, and its products of other bytes saturate), and none of the
    inputs of native kernels. `scores_of_part` replaces the constant of this name in the functions of attention.
    """
    if _TOPK_DIVIDES_BY_ZERO and (name, kernels) == ("Router", PORTABLE) and not arrays[0].size:
        pytest.skip(f"TopK of no rows ends the process in onnxruntime {ort.__version__}")
    kinds = tuple((_TYPES[a.dtype], a.ndim) for a in arrays)
    experts = {"Experts": len(arrays) - 4, "Int8Experts": len(arrays) - 7, "Int8ExpertsNorm": len(arrays) - 11}.get(
        name, 2
    ) // 2
    names = next(f for f in (*functions(experts), *int8_functions(experts)) if f.name == name).input
    values = dict(zip(names, arrays, strict=True))
    if constants is None:
        constants = [n for n, a in values.items() if a.dtype == np.int8 and kernels == PORTABLE]
    fixed = tuple((n, values[n].tobytes(), values[n].dtype.str, values[n].shape) for n in constants)
    given = tuple(attributes.items()), experts, tuple(settings), fixed, kernels, threads, scores_of_part
    session = _session(name, kinds, *given)
    return session.run(None, {i.name: values[i.name] for i in session.get_inputs()})


# The functions and every table of native kernels that this machine can run: run_graph for each.
GRAPHS = {name: partial(run_graph, kernels=name) for name in usable_kernels()}
NATIVE = tuple(name for name in GRAPHS if name != PORTABLE)
every_graph = pytest.mark.parametrize("execution", GRAPHS.values(), ids=GRAPHS)
needs_native = pytest.mark.skipif(not NATIVE, reason="the native library was not compiled")
