"""What the benchmarks share: naming the machine and taking turns."""

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

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


def row(shape: tuple[int, int], times: dict[str, list[float]]) -> str:
    """A row of the Markdown table: every median with its range, and the ratio of the last to the first."""
    medians = [statistics.median(t) for t in times.values()]
    shown = " | ".join(
        f"{median:.0f} ({min(t):.0f}-{max(t):.0f})" for median, t in zip(medians, times.values(), strict=True)
    )
    return f"| {shape[0]}x{shape[1]} | {shown} | {medians[-1] / medians[0]:.2f} |"
