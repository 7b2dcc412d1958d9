"""Native kernels against the functions in the graph, and against what the machine can do at best.

    python tests/checkpoints.py full --full && moembed export full -o full-fp32 && moembed quantize full-fp32 -o full-int8
    python tests/benchmarks/kernels.py full-int8 -o kernels

Writes `kernels.md`, `kernels.json` and `kernels.png`: medians and ranges of interleaved rounds, random ids without padding, a
corpus of mixed lengths in batches as `Embedder` plans them, time per token for ever larger calls, load time and memory.

The limit of a shape is the larger of two times: the weights it needs through memory, or its products at the rate of a loop
that does nothing else (`limits.cpp`, compiled here). `--clock cpu` counts the processor's time instead, which with one thread
is what to look at on a machine that others use too.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from common import calls

from moembed.batching import pad, plan
from moembed.bundle import Bundle
from moembed.kernels import PORTABLE, VARIABLE, usable_kernels
from moembed.machine import this_machine
from moembed.session import Session

SHAPES = ((1, 16), (1, 32), (1, 128), (1, 512), (8, 128), (32, 128), (8, 512))
GROWING = (8, 16, 32, 64, 128)  # texts of 128 tokens: 1k to 16k a call
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

_LOAD = """
import json, sys, time
from pathlib import Path
import numpy as np
from moembed.bundle import Bundle
from moembed.session import Session
def private():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1024
before = private()
start = time.perf_counter()
session = Session(Bundle.open(Path(sys.argv[1])), threads=2)
loaded = time.perf_counter() - start
held = private() - before
ids = np.full((1, 512), 7)
session.run("sentence_embedding", ids, np.ones_like(ids))
print(json.dumps({"load_s": loaded, "private_mb": held, "private_mb_after_512_tokens": private() - before}))
"""


def limits(threads: int, clock: str) -> dict[str, float]:
    """TOPS of int8 products, TFLOPS of float32, GB/s of reading memory."""
    source = Path(__file__).with_name("limits.cpp")
    with TemporaryDirectory() as folder:
        program = Path(folder) / "limits"
        compiler = os.environ.get("CXX", "c++").split()
        subprocess.run([*compiler, "-O2", "-march=native", "-pthread", source, "-o", program], check=True)
        printed = subprocess.run([program, str(threads), clock], capture_output=True, text=True, check=True).stdout
    return dict(zip(("int8_tops", "float32_tflops", "memory_gbs"), map(float, printed.split()), strict=True))


def limit_ms(bundle: Bundle, shape: tuple[int, int], best: dict[str, float]) -> float:
    """The least milliseconds of a call."""
    config = json.loads((bundle.folder / "config.json").read_text("utf-8"))
    hidden, inner, layers = config["n_embd"], config["n_inner"], config["n_layer"]
    experts, top_k, every = config["num_experts"], config["moe_top_k"], config["moe_every_n_layers"]
    batch, length = shape
    tokens, sparse = batch * length, layers // every
    attention, ffn = 4 * hidden * hidden, 2 * hidden * inner  # weights of a layer
    used = experts * (1 - (1 - top_k / experts) ** tokens)  # experts that random tokens meet
    read = layers * attention + (layers - sparse) * ffn + sparse * used * ffn
    products = 2 * tokens * (layers * attention + (layers - sparse) * ffn + sparse * top_k * ffn)
    scores = 4 * tokens * length * hidden * layers
    computing = products / best["int8_tops"] + scores / best["float32_tflops"]
    return 1e3 * max(computing / 1e12, read / best["memory_gbs"] / 1e9)


def rounds_of(runs: dict[str, Callable[[], object]], rounds: int, clock: str) -> dict[str, list[float]]:
    """Milliseconds of each run, in turn, after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            start = CLOCKS[clock]()
            run()
            if number:
                times[name].append(1e3 * (CLOCKS[clock]() - start))
    return times


def corpus(session: Session) -> Callable[[], object]:
    """Ninety-six texts of 4 to 512 tokens, most of them short, as `Embedder` would run them."""
    rng = np.random.default_rng(1)
    lengths = np.clip(rng.lognormal(4, 1, 96).astype(int), 4, 512)
    texts = [rng.integers(5, 40_000, length) for length in lengths]
    batches = [pad([texts[i] for i in part], 1) for part in plan([len(text) for text in texts], batch_size=64)]

    def run() -> None:
        for ids, mask in batches:
            session.run("sentence_embedding", ids, mask)

    return run


def sessions_of(bundle: Bundle, names: list[str], threads: int) -> dict[str, Session]:
    """One session for each set of kernels."""
    made = {}
    for name in names:
        os.environ[VARIABLE] = name
        made[name] = Session(bundle, threads=threads)
    return made


def measure(bundle: Bundle, names: list[str], threads: int, rounds: int, clock: str) -> dict[str, Any]:
    """Everything for a number of threads."""
    sessions, best = sessions_of(bundle, names, threads), limits(threads, clock)
    shapes = {}
    for shape in SHAPES:
        few = max(3, rounds // (1 + shape[0] * shape[1] // 2048))
        times = rounds_of(calls(sessions, shape), few, clock)
        shapes[f"{shape[0]}x{shape[1]}"] = {"ms": times, "limit_ms": limit_ms(bundle, shape, best)}
        print(threads, shape, {name: round(statistics.median(t), 1) for name, t in times.items()}, file=sys.stderr)
    shapes["corpus"] = {"ms": rounds_of({n: corpus(s) for n, s in sessions.items()}, 3, clock), "limit_ms": None}
    growing, first = {}, {names[0]: sessions[names[0]]}
    for texts in GROWING:
        (times,) = rounds_of(calls(first, (texts, 128)), 3, clock).values()
        growing[texts * 128] = 1e3 * statistics.median(times) / (texts * 128)
    return {"threads": threads, "limits": best, "shapes": shapes, "us_per_token": growing}


def table(result: dict[str, Any], names: list[str]) -> str:
    """Markdown."""
    lines = [f"{result['cpu']}, onnxruntime {result['onnxruntime']}, {result['clock']} time; median (min-max) ms."]
    for part in result["threads"]:
        best = part["limits"]
        lines += [
            f"\n{part['threads']} threads; at best {best['int8_tops']:.2f} TOPS int8, "
            f"{best['float32_tflops']:.3f} TFLOPS float32, {best['memory_gbs']:.1f} GB/s.\n",
            f"| batch x tokens | {' | '.join(names)} | {names[-1]} / {names[0]} | limit | of the limit |",
            "|---" * (len(names) + 4) + "|",
        ]
        for shape, found in part["shapes"].items():
            medians = {name: statistics.median(times) for name, times in found["ms"].items()}
            cells = [f"{medians[n]:.1f} ({min(t):.1f}-{max(t):.1f})" for n, t in found["ms"].items()]
            limit = found["limit_ms"]
            own = [f"{limit:.1f}", f"{limit / medians[names[0]]:.0%}"] if limit else ["", ""]
            lines.append(
                f"| {shape} | {' | '.join(cells)} | {medians[names[-1]] / medians[names[0]]:.2f} | {' | '.join(own)} |"
            )
        each = ", ".join(f"{tokens}: {us:.0f}" for tokens, us in part["us_per_token"].items())
        lines.append(f"\nMicroseconds per token by tokens per call ({names[0]}): {each}.")
    lines += ["\n| | load s | private MB | after a text of 512 tokens |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {one['load_s']:.2f} | {one['private_mb']:.0f} | {one['private_mb_after_512_tokens']:.0f} |"
        for name, one in result["load"].items()
    ]
    return "\n".join(lines) + "\n"


def plot(result: dict[str, Any], names: list[str], path: Path) -> None:
    """Tokens per second of each shape, and the machine's limit."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(result["threads"]), 1, figsize=(9, 3.4 * len(result["threads"])), squeeze=False)
    for axis, part in zip(axes[:, 0], result["threads"], strict=True):
        shapes = {s: found for s, found in part["shapes"].items() if found["limit_ms"]}
        tokens = [int(np.prod([int(n) for n in s.split("x")])) for s in shapes]
        for column, name in enumerate(names):
            speed = [1e3 * n / statistics.median(f["ms"][name]) for n, f in zip(tokens, shapes.values(), strict=True)]
            axis.bar(
                np.arange(len(shapes)) + column * 0.8 / len(names) - 0.4,
                speed,
                0.75 / len(names),
                align="edge",
                label=name,
            )
        limit = [1e3 * n / f["limit_ms"] for n, f in zip(tokens, shapes.values(), strict=True)]
        axis.plot(range(len(shapes)), limit, "k_", markersize=34, label="limit of the machine")
        axis.set_xticks(range(len(shapes)), list(shapes))
        axis.set_ylabel("tokens/s")
        axis.set_title(f"{result['cpu']}, {part['threads']} threads, {result['clock']} time")
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure and write."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("bundle", type=Path, help="an INT8 bundle of the published size")
    arguments.add_argument("-o", "--output", type=Path, required=True, help="a folder")
    arguments.add_argument(
        "--kernels", nargs="+", default=[usable_kernels()[0]], help="sets of kernels beside portable"
    )
    arguments.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments.add_argument("--rounds", type=int, default=15)
    arguments.add_argument("--clock", choices=CLOCKS, default="wall")
    chosen = arguments.parse_args()
    bundle, names = Bundle.open(chosen.bundle), [*chosen.kernels, PORTABLE]
    machine = this_machine()
    result: dict[str, Any] = {"cpu": machine.cpu, "onnxruntime": machine.onnxruntime, "clock": chosen.clock, "load": {}}
    for name in names:
        command = [sys.executable, "-c", _LOAD, str(chosen.bundle)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {VARIABLE: name})
        result["load"][name] = json.loads(done.stdout)
    result["threads"] = [measure(bundle, names, n, chosen.rounds, chosen.clock) for n in chosen.threads]
    chosen.output.mkdir(parents=True, exist_ok=True)
    text = table(result, names)
    (chosen.output / "kernels.md").write_text(text, "utf-8")
    (chosen.output / "kernels.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    plot(result, names, chosen.output / "kernels.png")
    print(text, end="")


if __name__ == "__main__":
    main()
