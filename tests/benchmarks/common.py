"""What the benchmarks share: the texts of a file, the same calls for all, and taking turns."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from moembed import Embedder
from moembed.evaluation.text_lines import numbered_lines
from moembed.inference.cpu import cpu_name
from moembed.inference.session import Session

SHAPES = ((1, 16), (1, 128), (8, 128))
# ONNX Runtime's threads spin for a while after a call, on the processors that the next one wants.
SPINNING_SECONDS = 0.05


def machine(embedder: Embedder) -> str:
    """This machine as tables name it: processor and kernels."""
    return f"{cpu_name()}, kernels `{embedder.kernels}`"


def texts_of_file(path: Path, *, language: str | None = None) -> Iterator[str]:
    """Texts of a file, without line breaks and further spaces: a text a line, or JSON with `text` or `t`.

    With `language`, those of others, which JSON names with `l`, are left out.
    """
    for _, line in numbered_lines(path):
        one = json.loads(line) if line.startswith("{") else {"t": line}
        text = " ".join((one.get("text") or one["t"]).split())
        if text and (language is None or one.get("l", language) == language):
            yield text


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
