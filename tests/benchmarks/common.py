"""What the benchmarks share: the same calls for all, and taking turns."""

import time
from collections.abc import Callable

import numpy as np

from moembed.inference.session import Session

SHAPES = ((1, 16), (1, 128), (8, 128))
# ONNX Runtime's threads spin for a while after a call, on the processors that the next one wants.
SPINNING_SECONDS = 0.05


def calls(sessions: dict[str, Session], shape: tuple[int, int]) -> dict[str, Callable[[], object]]:
    """One call of each session, all with the same random ids `[batch, tokens]` int64 and nothing padded."""
    ids = np.random.default_rng(0).integers(5, 30_000, shape)  # every vocabulary here has as many
    mask = np.ones_like(ids)
    return {
        name: lambda session=session: session.run("sentence_embedding", ids, mask) for name, session in sessions.items()
    }


def interleaved(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each of `runs`, called in turn `rounds` times after one warm-up."""
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            time.sleep(SPINNING_SECONDS)
            start = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - start))
    return times
