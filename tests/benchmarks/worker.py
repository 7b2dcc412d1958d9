"""A process of its own for one contestant; `contestants.Worker` starts it and talks to it in lines of JSON.

python tests/benchmarks/worker.py MODULE SOURCE MODE THREADS
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def memory() -> dict[str, float]:
    """Megabytes that the process has for itself, and the most that it ever had in memory, mapped files included (Linux)."""
    if sys.platform != "linux":
        return {"private_mb": float("nan"), "peak_mb": float("nan")}
    pages = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    private = sum(int(line.split()[1]) for line in pages if line.startswith("Private_Dirty"))
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {"private_mb": private / 1024, "peak_mb": int(peak.split()[1]) / 1024}


def main() -> None:
    """Load, then answer until the questions end."""
    module, source, mode, threads = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    peer = importlib.import_module(f"peers.{module}")
    start = time.perf_counter()
    embed = peer.load(Path(source), mode, int(threads))
    loaded = time.perf_counter() - start

    def say(answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    say({"version": peer.version(), "load_s": loaded} | memory())
    for line in sys.stdin:
        question = json.loads(line)
        if question["ask"] == "memory":
            say(memory())
            continue
        batches = [[np.asarray(text, np.int64) for text in batch] for batch in question["batches"]]
        start = time.perf_counter()
        vectors = [embed(batch) for batch in batches]
        spent = time.perf_counter() - start
        say({"ms": 1e3 * spent} if question["ask"] == "time" else np.concatenate(vectors).tolist())


if __name__ == "__main__":
    main()
