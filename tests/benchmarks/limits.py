"""What the machine can do at best, and the least time of a call that follows from it.

    python tests/benchmarks/limits.py [--threads 2] [--weights FILE] [--samples 40]

Prints what `limits.cpp` measured, as JSON, and the limits that the benchmarks use.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from moembed.bundle.bundle import Bundle
from moembed.inference.batching import pad
from moembed.inference.session import Output, run, session_options, session_with_outputs

UNITS = Path(__file__).with_name("units")
KERNELS = Path(__file__).parents[2] / "runtime" / "native" / "kernels"
STATES = ("alone", "between", "shared", "disturbed")  # the best first
# Flags of each source of `units`, by machine.
_AVX512 = ["-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni"]
_FLAGS = {
    "x86_64": {
        "amx": [*_AVX512, "-mamx-tile", "-mamx-int8"],
        "avx512": _AVX512,
        "avxvnni": ["-mavx2", "-mfma", "-mf16c", "-mavxvnni"],
        "avx2": ["-mavx2", "-mfma", "-mf16c"],
    },
    "aarch64": {"neon": ["-mcpu=generic+dotprod"], "neon_i8mm": ["-mcpu=generic+dotprod+i8mm"]},
}
_COMMON = ["-std=c++17", "-O2", "-Wall", "-Wextra", f"-I{UNITS}", f"-I{KERNELS}"]
_FEW_TOKENS = 256  # from here on, random tokens reach every expert


def compiler() -> list[str]:
    """The compiler and its options: what `CXX` names, or c++."""
    return shlex.split(os.environ.get("CXX", "c++"))


def compile_limits(folder: Path, machine: str | None = None, flags: Sequence[str] = ()) -> Path:
    """Compile `limits.cpp` with the units of a machine, by default this one; `CXX` names the compiler (gcc and clang).

    Raises:
        OSError: there is no compiler.
        subprocess.CalledProcessError: it fails.
    """
    name = machine or platform.machine().lower()
    units = _FLAGS[{"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)]
    sources: dict[Path, list[str]] = {UNITS.parent / "limits.cpp": [], KERNELS / "cpu.cpp": [], KERNELS / "x86.cpp": []}
    sources |= {UNITS / f"{name}.cpp": flags_of for name, flags_of in units.items()}
    objects = []
    for source, own in sources.items():
        objects.append(folder / f"{source.stem}.o")
        subprocess.run([*compiler(), *_COMMON, *own, *flags, "-c", source, "-o", objects[-1]], check=True)
    program = folder / "limits"
    subprocess.run([*compiler(), *flags, *objects, "-pthread", "-o", program], check=True)
    return program


def measured(threads: int, weights: Path | None = None, samples: int = 40) -> dict[str, Any]:
    """What `limits.cpp` prints; `weights` is the file whose pages are read."""
    with TemporaryDirectory() as folder:
        command = [compile_limits(Path(folder)), str(threads), str(samples), *([weights] if weights else [])]
        return dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def best_state(states: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The best state that a unit, or memory, was seen in, and its figures."""
    return next((state, states[state]) for state in STATES if state in states)


def unit_of(found: dict[str, Any], kernels: str) -> str:
    """The unit that kernels use. Portable and plain C++ kernels are held to the fastest unit that there is."""
    units: dict[str, Any] = {name: one for name, one in found["units"].items() if name != "float32"}
    return kernels if kernels in units else next(iter(units), "float32")


def halves_of(unit: str) -> int:
    """Products of bytes that one of 16 bits by 8 takes: one where the unit widens everything to 16 bits."""
    return 1 if unit == "avx2" else 2


def limits_of(found: dict[str, Any], kernels: str) -> dict[str, float]:
    """Limits for kernels, from what was measured.

    Returns:
        `int8_tops` out of registers and `product_tops` in a product of matrices, of the kernels' unit; `float32_tflops`;
        `memory_gbs`, reading the weights again, and `beyond_cache_gbs`, reading more than the last-level cache holds. A limit
        that could not be measured is missing.
    """
    _, int8 = best_state(found["units"][unit_of(found, kernels)])
    limits = {"int8_tops": int8["registers"], "product_tops": int8["rate"]}
    limits["float32_tflops"] = best_state(found["units"]["float32"])[1]["rate"]
    for name, key in (("weights", "memory_gbs"), ("beyond_cache", "beyond_cache_gbs")):
        if name in found["memory"]:
            limits[key] = best_state(found["memory"][name])[1]["rate"]
    return limits


def weights_of(bundle: Bundle) -> Path:
    """The file with a bundle's weights."""
    return bundle.graph.with_name(bundle.graph.name + "_data")


def experts_in_use(bundle: Bundle, batch: Sequence[Sequence[int]]) -> list[int]:
    """How many experts of each MoE layer read a token of a batch of ids: what the graph really chooses.

    Raises:
        moembed.errors.BundleError: the graph cannot be run.
    """
    routers = bundle.manifest.routers
    if not routers:
        return []
    names = [router.expert_indices for _, router in sorted(routers.items())]
    session = session_with_outputs(bundle.graph.read_bytes(), bundle.graph.parent, names, session_options())
    ids, mask = pad(batch, 0)
    _, *chosen = run(session, [Output.EMBEDDING, *names], ids, mask, str(bundle.graph))
    return [len(np.unique(one)) for one in chosen]


def work(bundle: Bundle, batch: Sequence[Sequence[int]]) -> dict[str, float]:
    """What a call with a batch of ids has to do: bytes of weights to read, operations on int8 and on float32.

    Weights are those of linear layers and of the experts that the batch uses. `attention16` is the operations of attention's
    two products where they are integer, with one operand in 16 bits; else they are `float32`.
    """
    config = json.loads((bundle.folder / "config.json").read_text("utf-8"))
    hidden, inner, layers = config["n_embd"], config["n_inner"], config["n_layer"]
    top_k, every = config["moe_top_k"], config["moe_every_n_layers"]
    lengths = [len(row) for row in batch]
    tokens, sparse = sum(lengths), layers // every
    attention, ffn = 4 * hidden * hidden, 2 * hidden * inner  # weights of a layer
    used = sparse * config["num_experts"] if tokens >= _FEW_TOKENS else sum(experts_in_use(bundle, batch))
    integer = b"Int8Attention" in bundle.graph.read_bytes()
    scores = 4.0 * sum(n * n for n in lengths) * hidden * layers
    return {
        "bytes": layers * attention + (layers - sparse) * ffn + used * ffn,
        "int8": 2 * tokens * (layers * attention + (layers - sparse) * ffn + sparse * top_k * ffn),
        "float32": 0.0 if integer else scores,
        "attention16": scores if integer else 0.0,
    }


def least_ms(calls: list[dict[str, float]], best: dict[str, float], *, halves: int = 2) -> float:
    """The least milliseconds of calls one after the other: each the larger of its reading and its computing.

    Args:
        calls: from `work`.
        best: from `limits_of`.
        halves: from `halves_of`.
    """
    total = 0.0
    for one in calls:
        int8 = one["int8"] + halves * one.get("attention16", 0.0)
        computing = int8 / best.get("product_tops", best["int8_tops"]) + one["float32"] / best["float32_tflops"]
        total += max(computing / 1e12, one["bytes"] / best["memory_gbs"] / 1e9)
    return 1e3 * total


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--weights", type=Path, help="read this file, such as a bundle's weights")
    arguments.add_argument("--samples", type=int, default=40)
    chosen = arguments.parse_args()
    found = measured(chosen.threads, chosen.weights, chosen.samples)
    print(json.dumps(found, indent=1))
    for unit in found["units"]:
        if unit != "float32":
            print(unit, json.dumps(limits_of(found, unit)))


if __name__ == "__main__":
    main()
