"""Loss by 4-bit expert weights: the reason why there is no recipe `int4-experts`.

    python tests/benchmarks/int4_experts.py FP32_BUNDLE --calibrate TEXTS

Only the experts' weights are quantized here, everything else stays float32, and the calibration texts differ from the measured
ones: a whole recipe could only be worse. Prints a Markdown table of cosines to the fp32 bundle over the probe texts, with int8
for comparison. A recipe needs a mean cosine of at least 0.9995.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from scipy.special import ndtr

from moembed.bundle.bundle import Bundle
from moembed.export.writer import write_graph
from moembed.quantize.calibrate import Calibration
from moembed.quantize.piece import initializer_array
from moembed.quantize.pipeline import read_model
from moembed.quantize.rounding import spread_of
from moembed.tokenizer.tokenizer import Ids, Tokenizer
from moembed.verify.parity import compare, graph_runner
from moembed.verify.probes import probe_ids
from moembed.verify.tolerances import Tolerance

DAMPING = 0.01
Floats = NDArray[np.float32]


def round_weights(matrix: Floats, inputs: Floats, *, bits: int, block: int | None, compensate: bool) -> Floats:
    """Round `[N, K]` to `bits`, with a scale per row or per `block` inputs, with or without error compensation (GPTQ)."""
    largest = 2 ** (bits - 1) - 1
    n, k = matrix.shape
    block = block or k
    scales = np.abs(matrix.reshape(n, k // block, block)).max(axis=2).repeat(block, axis=1) / largest
    scales = np.where(scales > 0, scales, 1).astype(np.float32)
    if not compensate:
        return np.clip(np.rint(matrix / scales), -largest, largest) * scales
    order, spread = spread_of((inputs.T @ inputs).astype(np.float64), DAMPING)
    weights, scale = np.ascontiguousarray(matrix.T[order]), scales.T[order]
    compensation, rounded = np.zeros(weights.shape), np.empty_like(weights)
    for i in reversed(range(k)):
        rounded[i] = np.clip(np.rint((weights[i] + compensation[i]) / scale[i]), -largest, largest) * scale[i]
        compensation[:i] += spread[i, :i, None] * (weights[i] - rounded[i])
    restored = np.empty_like(rounded)
    restored[order] = rounded
    return restored.T


def round_experts(graph: Path, texts: Sequence[Ids], rounding: Callable[[Floats, Floats], Floats]) -> ir.Model:
    """Return the model with the weights of every expert rounded."""
    model = read_model(graph)
    functions = [ir.serde.serialize_function(function) for function in model.functions.values()]
    calibration = Calibration(model, texts, functions)
    for node in model.graph:
        if node.op_type != "Experts":
            continue
        x, _, expert_indices, _, *matrices = node.inputs
        half = len(matrices) // 2
        inputs, chosen = calibration.inputs(node, x, expert_indices)
        for expert, (first, second) in enumerate(zip(matrices[:half], matrices[half:], strict=True)):
            w1, w2 = (initializer_array(value) for value in (first, second))
            rows = inputs[(chosen == expert).any(axis=1)]
            raw = rows @ w1.T
            hidden = (raw * ndtr(raw)).astype(np.float32)  # GELU
            first.const_value = ir.tensor(np.ascontiguousarray(rounding(w1, rows)), name=first.name)
            second.const_value = ir.tensor(np.ascontiguousarray(rounding(w2.T, hidden).T), name=second.name)
    return model


def main() -> None:
    """Measure, and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("bundle", type=Path, help="an fp32 bundle")
    arguments.add_argument("--calibrate", type=Path, required=True, metavar="FILE", help="texts, one a line")
    options = arguments.parse_args()
    bundle = Bundle.open(options.bundle)
    tokenizer, limit = Tokenizer(bundle), bundle.manifest.max_tokens
    lines = [line for line in options.calibrate.read_text("utf-8").splitlines() if line.strip()]
    texts = [ids[:limit] for ids in tokenizer.encode(lines)]
    expected, probes = graph_runner(bundle.graph), probe_ids(tokenizer, limit)
    no_limits = Tolerance(hidden_max_abs=None, embedding_min_cosine=-1, router_max_abs=None, margin=None)
    print("| experts' weights | mean 1 - cosine | mean cosine | minimum cosine |\n|---|---|---|---|")
    cases = ((8, None, True), (4, None, False), (4, None, True), (4, 32, False), (4, 32, True))
    for bits, block, compensate in cases:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "onnx" / "model.onnx"
            rounding = partial(round_weights, bits=bits, block=block, compensate=compensate)
            write_graph(round_experts(bundle.graph, texts, rounding), path, {})
            report = compare("float32", expected, graph_runner(path), probes, no_limits)
        granularity = f"{block} inputs" if block else "channel"
        method = "error compensation (GPTQ)" if compensate else "plain rounding"
        mean, least = report.embedding_mean_cosine, report.embedding_min_cosine
        case = f"{bits} bits, a scale per {granularity}, {method}"
        print(f"| {case} | {1 - mean:.2e} | {mean:.5f} | {least:.5f} |", flush=True)


if __name__ == "__main__":
    main()
