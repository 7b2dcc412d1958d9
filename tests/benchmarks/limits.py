"""What the machine can do at best, and the least time of a call that follows from it."""

import json
import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from moembed.bundle.bundle import Bundle


def limits(threads: int) -> dict[str, float]:
    """TOPS of int8 products, TFLOPS of float32, GB/s of reading memory: of loops that do nothing else (`limits.cpp`)."""
    source = Path(__file__).with_name("limits.cpp")
    with TemporaryDirectory() as folder:
        program = Path(folder) / "limits"
        compiler = os.environ.get("CXX", "c++").split()
        subprocess.run([*compiler, "-O2", "-march=native", "-pthread", source, "-o", program], check=True)
        printed = subprocess.run([program, str(threads), "wall"], capture_output=True, text=True, check=True).stdout
    return dict(zip(("int8_tops", "float32_tflops", "memory_gbs"), map(float, printed.split()), strict=True))


def work(bundle: Bundle, lengths: list[int]) -> dict[str, float]:
    """Of one call with texts of so many tokens: bytes of weights to read, operations on int8, operations on float32.

    Weights are those of linear layers, of experts as many as random tokens meet; float32 is attention's two products.
    """
    config = json.loads((bundle.folder / "config.json").read_text("utf-8"))
    hidden, inner, layers = config["n_embd"], config["n_inner"], config["n_layer"]
    experts, top_k, every = config["num_experts"], config["moe_top_k"], config["moe_every_n_layers"]
    tokens, sparse = sum(lengths), layers // every
    attention, ffn = 4 * hidden * hidden, 2 * hidden * inner  # weights of a layer
    used = experts * (1 - (1 - top_k / experts) ** tokens)
    return {
        "bytes": layers * attention + (layers - sparse) * ffn + sparse * used * ffn,
        "int8": 2 * tokens * (layers * attention + (layers - sparse) * ffn + sparse * top_k * ffn),
        "float32": 4 * sum(n * n for n in lengths) * hidden * layers,
    }


def least_ms(calls: list[dict[str, float]], best: dict[str, float]) -> float:
    """The least milliseconds of calls one after the other: each the larger of its reading and its computing."""
    total = 0.0
    for one in calls:
        computing = one["int8"] / best["int8_tops"] + one["float32"] / best["float32_tflops"]
        total += max(computing / 1e12, one["bytes"] / best["memory_gbs"] / 1e9)
    return 1e3 * total
