"""Attention of long texts: memory that grows with the length and not with its square, and parts that no result depends on."""

import subprocess
import sys

import numpy as np
import pytest

from moembed.bundle.bundle import Bundle
from moembed.export.pipeline import export
from moembed.inference.kernels import PORTABLE, VARIABLE, usable_kernels
from moembed.models.locate import locate
from moembed.quantize.layout import pack, quantize_rows
from moembed.quantize.pipeline import quantize
from support.graph_ops import run_graph
from support.tiny_networks import tensors_of, write_tiny

HEADS, TOKENS = 2, 4096
SCORES = 4 * HEADS * TOKENS**2  # bytes of one float32 tensor of the scores of all queries
# Parts of them are a few tensors of 4 MB at a time; activations and the memory of ONNX Runtime's arena come on top.
MOST_GROWTH = SCORES // 2

_PEAK = """
import re, sys
import numpy as np
from moembed import Embedder
from moembed.bundle.bundle import Bundle

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

embedder, peaks = Embedder(Bundle.open(sys.argv[1]), threads=1), []
short = ["a b c d e f g"] * 7
for texts in (short, ["a " * (int(sys.argv[2]) - 2), *short]):
    embedder.encode(texts)
    peaks.append(peak())
print(embedder.kernels, peaks[1] - peaks[0])
"""


@pytest.fixture(scope="module", params=["fp32", "int8"])
def bundle(request, once):
    """A network of one layer that reads long texts."""
    tensors = {name: values for name, values in tensors_of("gte").items() if "layer.1." not in name}
    changes = {"num_hidden_layers": 1, "num_attention_heads": HEADS, "max_position_embeddings": TOKENS}
    checkpoint = once("one long layer", lambda path: write_tiny(path, "gte", tensors=tensors, **changes))
    fp32 = Bundle.open(once("one long layer fp32", lambda path: export(locate(checkpoint), path)))
    if request.param == "fp32":
        return fp32
    return Bundle.open(once("one long layer int8", lambda path: quantize(fp32, path)))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "kernels",
    [
        name if name in (usable_kernels()[0], PORTABLE) else pytest.param(name, marks=pytest.mark.long)
        for name in usable_kernels()
    ],
)
def test_no_scores_of_all_queries_are_in_memory(bundle, kernels, monkeypatch):
    """M33: of a long text in one batch with seven short ones."""
    monkeypatch.setenv(VARIABLE, kernels)
    command = [sys.executable, "-c", _PEAK, str(bundle.folder), str(TOKENS)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    used, growth = done.stdout.split()
    assert used == kernels
    assert int(growth) < MOST_GROWTH, f"{int(growth) / SCORES:.2f} times the scores"


def _texts(lengths, heads, dim, extra=0):
    """Inputs of both operators of attention for the same texts, by name."""
    rng, tokens, width = np.random.default_rng(sum(lengths)), sum(lengths), 3 * heads * dim
    mask = (np.arange(max(lengths) + extra) < np.array(lengths)[:, None]).astype(np.int64)
    angle = np.outer(np.arange(mask.shape[1]), 100.0 ** (-np.arange(0, dim, 2) / dim))
    turns = [np.flatnonzero(mask), mask, np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)]
    weight, scale = quantize_rows(rng.standard_normal((width, 16)).astype(np.float32))
    rows = [rng.integers(0, 256, (tokens, 16)).astype(np.uint8), np.full((tokens, 1), 0.01, np.float32)]
    return {
        "Attention": [rng.standard_normal((tokens, width)).astype(np.float32), *turns],
        "Int8Attention": [*rows, pack(weight), scale, np.zeros(width, np.float32), *turns],
    }


def _run(op, arrays, heads, **options):
    return [a.tobytes() for a in run_graph(op, arrays, {"num_heads": heads}, **options)]


@pytest.mark.parametrize("op", ["Attention", "Int8Attention"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("lengths", [(1,), (15, 1), (31, 33), (64, 16, 129), (160,), (161,), (257,)])
def test_results_do_not_depend_on_the_parts(op, threads, lengths):
    """Parts of the fewest rows, of some, and one part: the last one is whole, partial, or a single query."""
    heads, dim = 2, 16
    arrays = _texts(lengths, heads, dim)[op]
    whole = _run(op, arrays, heads, scores_of_part=2**40)
    columns = -(-max(lengths) // 16) * 16
    for rows in (1, 48, 64, 128):
        scores = rows * len(lengths) * heads * columns
        assert _run(op, arrays, heads, threads=threads, scores_of_part=scores) == whole, rows


@pytest.mark.parametrize("op", ["Attention", "Int8Attention"])
def test_long_texts_alone_and_together(op):
    """Together they have other parts than alone: 1,048,576 scores are 204 rows of these three, or 512 of the longest."""
    heads, dim, lengths = 4, 8, (420, 47, 400)
    whole = _texts(lengths, heads, dim, extra=9)[op]
    together = run_graph(op, whole, {"num_heads": heads}, threads=2)
    per_token = {"Attention": (0,), "Int8Attention": (0, 1)}[op]
    starts = np.cumsum([0, *lengths])
    for row, length in enumerate(lengths):
        part = slice(starts[row], starts[row + 1])
        alone = [array[part] if index in per_token else array for index, array in enumerate(whole)]
        alone[-4:-2] = [np.arange(length), np.ones((1, length), np.int64)]
        found = run_graph(op, alone, {"num_heads": heads})
        assert [a.tobytes() for a in found] == [np.ascontiguousarray(a[part]).tobytes() for a in together], length
