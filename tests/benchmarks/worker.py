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

    def timed(batches: list[list[np.ndarray]]) -> tuple[float, list[np.ndarray]]:
        start = time.perf_counter()
        vectors = [embed(batch) for batch in batches]
        return 1e3 * (time.perf_counter() - start), vectors

    say({"version": peer.version(), "load_s": loaded} | memory())
    for line in sys.stdin:
        question = json.loads(line)
        if question["ask"] == "memory":
            say(memory())
            continue
        batches = [[np.asarray(text, np.int64) for text in batch] for batch in question["batches"]]
        if question["ask"] == "time":
            # After a pause, a short call is slow more than once: 244, 20, 12, 10.5 ms and 10 after ten calls were seen.
            untimed = [timed(batches[:1])[0]]
            while len(untimed) < 10 and sum(untimed) < 500:
                untimed.append(timed(batches[:1])[0])
            first, (spent, _) = untimed[0], timed(batches)
            say({"first_ms": first, "ms": spent})
        else:
            say(np.concatenate(timed(batches)[1]).tolist())


if __name__ == "__main__":
    main()
