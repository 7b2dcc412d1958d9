"""What four bits would cost the experts: why there is no recipe `int4-experts`.

    python tests/benchmarks/int4_experts.py FP32_BUNDLE --calibrate TEXTS

Only the experts' weights get four bits here, all else stays float32, and calibration texts are not the ones that are measured:
the vectors of a recipe could only be worse. Prints a Markdown table of cosines to the float32 bundle over the probe texts;
int8, by the same means, for scale. The bar is a mean of at least 0.9995.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from moembed.bundle.bundle import Bundle
from moembed.export.writer import write_graph
from moembed.quantize.calibrate import Activations, expert_inputs, record_activations
from moembed.quantize.rounding import spread_of
from moembed.quantize.smoothing import initializer_array
from moembed.tokenizer.tokenizer import Tokenizer
from moembed.verify.parity import compare, graph_runner
from moembed.verify.probes import probe_ids
from moembed.verify.tolerances import Tolerance

DAMPING = 0.01
Floats = NDArray[np.float32]


def rounded(matrix: Floats, inputs: Floats, *, bits: int, block: int | None, cancel: bool) -> Floats:
    """`[N, K]` with as many levels as `bits` has, a scale per row or for every `block` inputs, errors cancelled or not."""
    largest = 2 ** (bits - 1) - 1
    n, k = matrix.shape
    block = block or k
    scales = np.abs(matrix.reshape(n, k // block, block)).max(axis=2).repeat(block, axis=1) / largest
    scales = np.where(scales > 0, scales, 1).astype(np.float32)
    if not cancel:
        return np.clip(np.rint(matrix / scales), -largest, largest) * scales
    order, spread = spread_of(inputs, DAMPING)
    left, scale = np.ascontiguousarray(matrix.T[order]), scales.T[order]
    found = np.empty_like(left)
    for i in range(k):
        found[i] = np.clip(np.rint(left[i] / scale[i]), -largest, largest) * scale[i]
        left[i + 1 :] -= spread[i, i + 1 :, None] * ((left[i] - found[i]) / spread[i, i])
    back = np.empty_like(found)
    back[order] = found
    return back.T


def replaced(graph: Path, values: Activations, rounding: Callable[[Floats, Floats], Floats]) -> ir.Model:
    """The model with every expert's weights rounded."""
    model = ir.load(graph)
    for node in model.graph:
        if node.op_type != "Experts":
            continue
        x, _, expert_indices, _, *matrices = node.inputs
        half = len(matrices) // 2
        for expert, (first, second) in enumerate(zip(matrices[:half], matrices[half:], strict=True)):
            w1, w2 = (initializer_array(value) for value in (first, second))
            rows, hidden = expert_inputs(values[x.name], values[expert_indices.name], expert, w1)
            first.const_value = ir.tensor(np.ascontiguousarray(rounding(w1, rows)), name=first.name)
            second.const_value = ir.tensor(np.ascontiguousarray(rounding(w2.T, hidden).T), name=second.name)
    return model


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("bundle", type=Path, help="an fp32 bundle")
    arguments.add_argument("--calibrate", type=Path, required=True, metavar="FILE", help="texts, one a line")
    chosen = arguments.parse_args()
    bundle = Bundle.open(chosen.bundle)
    tokenizer, limit = Tokenizer(bundle), bundle.manifest.max_tokens
    lines = [line for line in chosen.calibrate.read_text("utf-8").splitlines() if line.strip()]
    values = record_activations(bundle.graph, [ids[:limit] for ids in tokenizer.encode(lines)])
    expected, probes = graph_runner(bundle.graph), probe_ids(tokenizer, limit)
    free = Tolerance(hidden_max_abs=None, embedding_min_cosine=-1, router_max_abs=None, margin=None)
    print("| experts' weights | mean 1 - cosine | mean cosine | least |\n|---|---|---|---|")
    cases = ((8, None, True), (4, None, False), (4, None, True), (4, 32, False), (4, 32, True))
    for bits, block, cancel in cases:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "onnx" / "model.onnx"
            rounding = partial(rounded, bits=bits, block=block, cancel=cancel)
            write_graph(replaced(bundle.graph, values, rounding), path, {})
            report = compare("float32", expected, graph_runner(path), probes, free)
        grain, how = (
            f"{block} inputs" if block else "channel",
            "errors cancelled (GPTQ)" if cancel else "plain rounding",
        )
        mean = report.embedding_mean_cosine
        print(
            f"| {bits} bits, a scale per {grain}, {how} | {1 - mean:.2e} | {mean:.5f} | {report.embedding_min_cosine:.5f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
