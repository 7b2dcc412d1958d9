"""A gated MLP with its norm in INT8: one operator, and the four that it takes the place of, in turns.

    python tests/benchmarks/gated.py [1x16 1x128 8x128] [--hidden 768] [--inner 3072] [--rounds 30] [--threads 2]

Prints a Markdown table: medians of one layer, in milliseconds, by the kernels that `MOEMBED_KERNELS` names. Weights are random,
and as many layers follow one another as a network has, so that a call finds none of its weights in a cache.
"""

import argparse
import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from common import SHAPES, interleaved
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from moembed.export.functions import DOMAIN, IR_VERSION, OPSET, VERSION
from moembed.inference.kernels import choose_kernels
from moembed.inference.session import open_graph, session_options
from moembed.quantize.functions import int8_functions

LAYERS = 12
_LINEAR = ("weight", "scale", "bias")
_NORM = ("gamma", "beta", "smooth")


def layer(index: int, row: Sequence[str], *, fused: bool) -> list[NodeProto]:
    """The nodes of a layer, from the names of `y`, `quantized` and `scale` before it to `y{index}`, `q{index}`, `s{index}`."""
    residual, quantized, scale = row
    up, gate, down = ([f"{name}_{part}" for part in _LINEAR] for name in ("up", "gate", "down"))
    norm, out = [residual, *_NORM], [f"y{index}", f"q{index}", f"s{index}"]
    make = partial(helper.make_node, domain=DOMAIN)
    if fused:
        inputs = [quantized, scale, *_own(index, up), *_own(index, gate), *_own(index, down), *norm]
        return [make("Int8GeluMulFeedForwardNorm", inputs, out, epsilon=1e-12)]
    product = [f"product{index}", f"product_scale{index}"]
    return [
        *(
            make("Int8Linear", [quantized, scale, *_own(index, part)], [f"{name}{index}"], zero_point=128)
            for name, part in (("up", up), ("gate", gate))
        ),
        make("GeluMulQuantize", [f"gate{index}", f"up{index}"], product),
        make("Int8LinearNorm", [*product, *_own(index, down), *norm], out, epsilon=1e-12),
    ]


def _own(index: int, names: Sequence[str]) -> list[str]:
    return [f"{name}{index}" for name in names]


def network(hidden: int, inner: int, *, fused: bool) -> ModelProto:
    """All layers; the weights are the same with and without fusion."""
    rng, arrays = np.random.default_rng(0), {}
    for index in range(LAYERS):
        for name, rows, columns in (("up", inner, hidden), ("gate", inner, hidden), ("down", hidden, inner)):
            packed = (rows // 16, columns // 4, 16, 4)
            arrays[f"{name}_weight{index}"] = rng.integers(-127, 128, packed, np.int8)
            arrays[f"{name}_scale{index}"] = np.full(rows, 1 / (64 * np.sqrt(columns)), np.float32)
            arrays[f"{name}_bias{index}"] = np.zeros(rows, np.float32)
    arrays |= {name: np.full(hidden, name != "beta", np.float32) for name in _NORM}
    nodes, row = [], ["y", "q", "s"]
    for index in range(LAYERS):
        nodes += layer(index, row, fused=fused)
        row = [f"y{index}", f"q{index}", f"s{index}"]
    kinds = [("y", TensorProto.FLOAT, hidden), ("q", TensorProto.UINT8, hidden), ("s", TensorProto.FLOAT, 1)]
    inputs = [helper.make_tensor_value_info(name, kind, [None, width]) for name, kind, width in kinds]
    outputs = [helper.make_tensor_value_info(row[0], TensorProto.FLOAT, [None, hidden])]
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "gated", inputs, outputs, weights)
    used = {node.op_type for node in nodes}
    functions = [function for function in int8_functions(1) if function.name in used]
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)]
    return helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=IR_VERSION)


def session(model: ModelProto, threads: int) -> Any:
    """A session with the options of moembed."""
    options = session_options(threads=threads)
    options.intra_op_num_threads = threads
    return open_graph(model.SerializeToString(), "the network", options)


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("shapes", nargs="*", default=["x".join(map(str, shape)) for shape in SHAPES])
    arguments.add_argument("--hidden", type=int, default=768)
    arguments.add_argument("--inner", type=int, default=3072)
    arguments.add_argument("--rounds", type=int, default=30)
    arguments.add_argument("--threads", type=int, default=2)
    chosen = arguments.parse_args()
    sessions = {
        name: session(network(chosen.hidden, chosen.inner, fused=name == "fused"), chosen.threads)
        for name in ("four", "fused")
    }
    print(f"{choose_kernels().name}, {chosen.threads} threads, {chosen.hidden} and {chosen.inner} channels\n")
    print("| shape | four operators | one | ratio |\n|---|---|---|---|")
    for shape in chosen.shapes:
        rows, rng = int(np.prod([int(part) for part in shape.split("x")])), np.random.default_rng(1)
        feed = {
            "y": rng.standard_normal((rows, chosen.hidden), np.float32),
            "q": rng.integers(0, 256, (rows, chosen.hidden)).astype(np.uint8),
            "s": np.full((rows, 1), 0.02, np.float32),
        }
        runs = {name: partial(one.run, None, feed) for name, one in sessions.items()}
        four, fused = (statistics.median(times) / LAYERS for times in interleaved(runs, chosen.rounds).values())
        print(f"| {shape} | {four:.3f} | {fused:.3f} | {fused / four:.2f} |", flush=True)


if __name__ == "__main__":
    main()
