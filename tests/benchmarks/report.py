"""What `compare.json` says, as Markdown and as a plot."""

import statistics
from pathlib import Path
from typing import Any

from contestants import CONTESTANTS, LLAMA, NATIVE, PORTABLE
from limits import least_ms

GROWING = (8, 16, 32, 64, 128)  # texts of 128 tokens: 1k to 16k a call
RIVALS = {one.name: one.rival for one in CONTESTANTS}
Values = dict[str, Any]


def medians(values: Values, threads: str, shape: str) -> dict[str, float]:
    """Milliseconds of each contestant that was measured."""
    return {name: statistics.median(ms) for name, ms in values["times"][threads].get(shape, {}).items()}


def best(values: Values, threads: str) -> dict[str, float]:
    """The machine's limits: the best of all that were measured."""
    found = values["limits"][threads]
    return {key: max(one[key] for one in found) for key in found[0]}


def least(values: Values, threads: str, shape: str) -> float:
    """The least milliseconds of a shape."""
    return least_ms(values["work"][shape], best(values, threads))


def rival(values: Values, threads: str, shape: str) -> float | None:
    """How many times as long OpenVINO's best mode takes as we do."""
    found = medians(values, threads, shape)
    others = [ms for name, ms in found.items() if RIVALS[name] == "openvino"]
    return min(others) / found[NATIVE] if others and NATIVE in found else None


def markdown(values: Values) -> str:
    """All of it."""
    parts = [heading(values)]
    for threads in values["times"]:
        parts += [table(values, threads, ranges=True), machine_limits(values, threads)]
    parts += [growth(values), "Bars of the project, 2 threads:\n\n" + bars(values)] if "2" in values["times"] else []
    return "\n".join(parts)


def heading(values: Values) -> str:
    """The machine, the versions of all contestants, and what was measured."""
    machine = values["machine"]
    versions = dict.fromkeys(one["version"] for one in values["contestants"].values() if "version" in one)
    tokens = values["tokens"]["corpus"]
    return (
        f"{machine['cpu']} ({', '.join(machine['instructions'])}), kernels {machine['kernels']}; {', '.join(versions)}.\n"
        f"Milliseconds of one call, batch x tokens; corpus: {len(tokens)} texts of {min(tokens)} to {max(tokens)} tokens, "
        f"{sum(tokens)} in all.\n"
    )


def table(values: Values, threads: str, *, ranges: bool) -> str:
    """One line per contestant, one column per shape, medians with their ranges or without."""
    shapes = [shape for shape in values["tokens"] if shape in values["times"][threads]]
    head = [f"{threads} thread{'s' * (threads != '1')}", *shapes, "load s", "private MB", "peak MB", "cosine"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, entry in values["contestants"].items():
        if why := entry.get("absent") or entry.get("refused"):
            lines.append(f"| {name} | {why} |{' |' * (len(head) - 2)}")
            continue
        cells = []
        for shape in shapes:
            ms = values["times"][threads][shape].get(name)
            cells.append(_cell(ms, ranges=ranges) if ms else "")
        loads = entry.get("loads", [])
        for key, form in (("load_s", ".2f"), ("used_mb", ".0f"), ("peak_mb", ".0f")):
            cells.append(format(statistics.median(one[key] for one in loads), form) if loads else "")
        cells.append(f"{entry['cosine']:.4f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for title, cells in _judged(values, threads, shapes):
        lines.append(f"| {title} | {' | '.join(cells)} | | | | |")
    return "\n".join(lines) + "\n"


def _judged(values: Values, threads: str, shapes: list[str]) -> list[tuple[str, list[str]]]:
    limit = [least(values, threads, shape) for shape in shapes]
    own = [medians(values, threads, shape).get(NATIVE) for shape in shapes]
    ratios = [rival(values, threads, shape) for shape in shapes]
    return [
        ("limit of this machine", [f"{ms:.0f}" if ms >= 20 else f"{ms:.1f}" for ms in limit]),
        (f"{NATIVE}, of the limit", [f"{ms / x:.0%}" if x else "" for ms, x in zip(limit, own, strict=True)]),
        ("OpenVINO's best / ours", [f"{ratio:.2f}" if ratio else "" for ratio in ratios]),
    ]


def _cell(ms: list[float], *, ranges: bool) -> str:
    median = statistics.median(ms)
    digits = 0 if median >= 20 else 1
    return f"{median:.{digits}f}" + (f" ({min(ms):.{digits}f}-{max(ms):.{digits}f})" if ranges else "")


def machine_limits(values: Values, threads: str) -> str:
    """The best that the machine was seen to do, and how it was measured."""
    at = best(values, threads)
    shares = [share for found in values.get("others", {}).get(threads, {}).values() for share in found]
    others = f" Other processes used {statistics.median(shares):.0%} of the processors meanwhile." if shares else ""
    rounds = [len(found[NATIVE]) for found in values["times"][threads].values()]
    return (
        f"At best: {at['int8_tops']:.2f} TOPS of int8, {at['float32_tflops']:.3f} TFLOPS of float32, "
        f"{at['memory_gbs']:.1f} GB/s. Medians (ranges) of {max(rounds)} rounds, {min(rounds)} of the largest.{others}\n"
    )


def growth(values: Values) -> str:
    """Time per token by tokens per call."""
    each = {int(n) * 128: statistics.median(us) for n, us in values.get("growing", {}).items()}
    return f"{NATIVE}, microseconds per token by tokens per call: {', '.join(f'{n}: {us:.0f}' for n, us in each.items())}.\n"


def bars(values: Values) -> str:
    """Each bar, what was measured, and whether it is met."""
    rows: list[tuple[str, str, bool]] = []

    def ratio(title: str, shape: str, name: str, least_ratio: float) -> None:
        found = medians(values, "2", shape)
        if name in found and NATIVE in found:
            times = found[name] / found[NATIVE]
            rows.append((title, f"{times:.2f}", times >= least_ratio))

    for shape in values["times"]["2"]:
        wanted = 2 if shape == "1x16" else 3
        if times := rival(values, "2", shape):
            ceiling = times * medians(values, "2", shape)[NATIVE] / least(values, "2", shape)
            rows.append(
                (f"{wanted}x OpenVINO's best, {shape}", f"{times:.2f} (at the limit: {ceiling:.2f})", times >= wanted)
            )
    ratio("8x llama.cpp Q8_0, 8x128", "8x128", LLAMA, 8)
    ratio("4x the portable path, 8x128", "8x128", PORTABLE, 4)
    found = medians(values, "2", "8x128")
    if found:
        share = values["work"]["8x128"][0]["int8"] / found[NATIVE] / 1e9 / best(values, "2")["int8_tops"]
        rows.append(("40 % of the int8 limit (no AMX here: AVX512-VNNI), 8x128", f"{share:.0%}", share >= 0.4))
    if found := medians(values, "2", "1x16"):
        reading = values["work"]["1x16"][0]["bytes"] / best(values, "2")["memory_gbs"] / 1e6
        times = found[NATIVE] / reading
        rows.append(("1x16 within 1.5 of reading its weights", f"{times:.2f} ({reading:.1f} ms)", times <= 1.5))
    each = [statistics.median(us) for us in values.get("growing", {}).values()]
    if each:
        middle = (max(each) + min(each)) / 2
        spread = max(each) / middle - 1
        rows.append(("time per token flat within 20 %, 1k to 16k a call", f"+-{spread:.0%}", spread <= 0.2))
    lines = ["| bar | measured | met |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {a} | {b} | {'yes' if c else 'no'} |" for a, b, c in rows)]) + "\n"


def plot(values: Values, path: Path) -> None:
    """Tokens per second of each shape, and the machine's limit."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(values["times"]), 1, figsize=(11, 4 * len(values["times"])), squeeze=False)
    names = [name for name, entry in values["contestants"].items() if entry.get("loads")]
    for axis, threads in zip(axes[:, 0], values["times"], strict=True):
        shapes = [shape for shape in values["tokens"] if shape in values["times"][threads]]
        tokens = {shape: sum(values["tokens"][shape]) for shape in shapes}
        for column, name in enumerate(names):
            at, speed = [], []
            for i, shape in enumerate(shapes):
                if ms := medians(values, threads, shape).get(name):
                    at.append(i + (column + 0.5) * 0.84 / len(names) - 0.42)
                    speed.append(1e3 * tokens[shape] / ms)
            axis.bar(at, speed, 0.8 / len(names), label=name, color=pyplot.get_cmap("tab20")(column))
        limit = [1e3 * tokens[shape] / least(values, threads, shape) for shape in shapes]
        axis.hlines(limit, [i - 0.43 for i in range(len(shapes))], [i + 0.43 for i in range(len(shapes))], "k")
        axis.plot([], [], "k", label="limit of the machine")
        axis.set_xticks(range(len(shapes)), shapes)
        axis.set_ylabel("tokens/s")
        axis.set_title(f"{values['machine']['cpu']}, {threads} thread{'s' * (threads != '1')}; 475 M parameters")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), fontsize=8, ncols=4, loc="upper center")
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.6 / figure.get_figheight()))
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
