"""Sessions of a model for a server: one that uses all threads, and lanes that share them.

The steps of a call end when the slowest thread does, so a call on many threads wastes time at each step, and more of it while
the event loop takes a CPU. Calls that run beside each other, with fewer threads each, do not wait for one another. A lane's
session maps the same weights: it takes 10 ms to open and 1.5 MB for the built-in model.
"""

from collections.abc import Sequence

from moembed.embedder import Embedder
from moembed.inference.kernels import PORTABLE
from moembed.inference.session import Session

_MOST = 4


def division(threads: int) -> tuple[int, int]:
    """Return the number of lanes for so many threads, and the threads of each. At most one thread is left over."""
    lanes = next(lanes for lanes in range(min(_MOST, threads), 0, -1) if threads % lanes <= 1)
    return lanes, threads // lanes


def open_lanes(embedder: Embedder) -> Sequence[Session]:
    """Open the sessions of the lanes; none if there would be one lane, or if a session has weights of its own.

    Raises:
        BundleError: ONNX Runtime cannot load the graph.
    """
    lanes, threads = division(embedder.threads)
    if lanes == 1 or embedder.kernels == PORTABLE:
        return ()
    return [Session(embedder.bundle, providers=embedder.providers, threads=threads, spin=False) for _ in range(lanes)]
