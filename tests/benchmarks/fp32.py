"""A float32 bundle against the torch network it was traced from: the same texts, interleaved, medians and ratios.

    python tests/checkpoints.py /tmp/full --full            # random weights of the published size
    moembed export /tmp/full -o /tmp/full-bundle
    python tests/benchmarks/fp32.py /tmp/full /tmp/full-bundle

Prints a Markdown table. Times are of one call in milliseconds; a ratio above 1 means that the bundle is faster.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from moembed.bundle import Bundle
from moembed.models.checkpoint import load_network
from moembed.session import Session

SHAPES = ((1, 16), (1, 128), (8, 128))


def cpu_name() -> str:
    """The processor as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def interleaved(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each of `runs`, called in turn `rounds` times after one warm-up."""
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - start))
    return times


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("checkpoint", type=Path)
    arguments.add_argument("bundle", type=Path)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=15)
    chosen = arguments.parse_args()
    torch.set_num_threads(chosen.threads)
    network = load_network(chosen.checkpoint)
    session = Session(Bundle.open(chosen.bundle), threads=chosen.threads)
    print(
        f"{cpu_name()}, {chosen.threads} threads, onnxruntime {onnxruntime.__version__}, torch {torch.__version__}, "
        f"{chosen.rounds} interleaved rounds, median (min-max) ms\n"
    )
    print("| batch x tokens | moembed fp32 | torch fp32 | ratio of medians |\n|---|---|---|---|")
    rng = np.random.default_rng(0)
    for batch, length in SHAPES:
        ids = rng.integers(5, network.config.vocab_size - 64, (batch, length))
        mask = np.ones_like(ids)
        tensors = torch.from_numpy(ids), torch.from_numpy(mask)

        def by_torch(tensors: tuple[torch.Tensor, torch.Tensor] = tensors) -> object:
            with torch.inference_mode():
                return network(*tensors)

        def by_bundle(ids: np.ndarray = ids, mask: np.ndarray = mask) -> object:
            return session.run("sentence_embedding", ids, mask)

        times = interleaved({"moembed": by_bundle, "torch": by_torch}, chosen.rounds)
        shown = [f"{statistics.median(t):.0f} ({min(t):.0f}-{max(t):.0f})" for t in times.values()]
        ratio = statistics.median(times["torch"]) / statistics.median(times["moembed"])
        print(f"| {batch}x{length} | {shown[0]} | {shown[1]} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
