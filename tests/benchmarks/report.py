"""What `compare.json` says, as Markdown and as a plot."""

import statistics
from pathlib import Path
from typing import Any

from contestants import NATIVE, PEER_OF, PORTABLE, READ
from limits import halves_of, least_ms

GROWING = (8, 16, 32, 64, 128)  # texts of 128 tokens: 1k to 16k a call
LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)  # tokens of one text, as far as the model goes
JUDGED = ("1x128", "1x512", "8x128", "32x128", "8x512")  # the geometric mean is over these
STREAMS = {"mixed": "mixed lengths, each with its best batches", "corpus": "corpus, in the same batches for all"}
Values = dict[str, Any]


def medians(values: Values, threads: str, shape: str) -> dict[str, float]:
    """Milliseconds of each contestant that was measured."""
    return {name: statistics.median(ms) for name, ms in values["times"][threads].get(shape, {}).items()}


def best(values: Values, threads: str) -> dict[str, float]:
    """The machine's limits: the best of all that were measured."""
    found = values["limits"][threads]
    return {key: max(one[key] for one in found) for key in found[0]}


def unit(values: Values) -> str:
    """The unit whose limits count."""
    return str(values.get("unit") or values["machine"]["kernels"])


def least(values: Values, threads: str, shape: str) -> float:
    """The least milliseconds of a shape."""
    return least_ms(values["work"][shape], best(values, threads), halves=halves_of(unit(values)))


def best_peer(values: Values, threads: str, shape: str, peers: Values | None = None) -> tuple[float, str] | None:
    """How many times as long the best peer takes as we do, and what it is: the fastest mode of all other programs."""
    found = medians(values, threads, shape) if peers is None else peers
    others = [(ms, name) for name, ms in found.items() if PEER_OF[name]]
    return (min(others)[0] / found[NATIVE], min(others)[1]) if others and NATIVE in found else None


def mean_ratio(values: Values, threads: str) -> tuple[float, float, list[str]] | None:
    """Geometric mean and least of the ratios over `JUDGED`, and the shapes of these that were measured."""
    found = {shape: best_peer(values, threads, shape) for shape in JUDGED if shape in values["times"][threads]}
    ratios = [ratio[0] for ratio in found.values() if ratio]
    return (statistics.geometric_mean(ratios), min(ratios), [k for k, v in found.items() if v]) if ratios else None


def markdown(values: Values) -> str:
    """All of it."""
    parts = [heading(values)]
    for threads in values["times"]:
        parts += [table(values, threads, ranges=True), peers_line(values, threads), machine_limits(values, threads)]
        parts.append(first_calls(values, threads))
    if "2" in values["times"]:
        parts += [streams(values), growth(values), "Bars of the project, 2 threads:\n\n" + bars(values)]
    return "\n".join(part for part in parts if part)


def heading(values: Values) -> str:
    """The machine, the versions of all contestants, and what was measured."""
    machine = values["machine"]
    versions = dict.fromkeys(one["version"] for one in values["contestants"].values() if "version" in one)
    (stream,) = (name for name in STREAMS if name in values["tokens"])
    tokens = values["tokens"][stream]
    warm = "after up to ten that do not count" if values.get("protocol") == 2 else "each right after a pause"
    return (
        f"{machine['cpu']} ({', '.join(machine['instructions'])}), kernels {machine['kernels']}; {', '.join(versions)}.\n"
        f"Milliseconds of one call, batch x tokens, {warm}; {stream}: {len(tokens)} texts of {min(tokens)} to {max(tokens)} "
        f"tokens, {sum(tokens)} in all ({STREAMS[stream]}).\n"
    )


def table(values: Values, threads: str, *, ranges: bool) -> str:
    """One line per contestant, one column per shape, medians with their ranges or without."""
    shapes = [shape for shape in values["tokens"] if values["times"][threads].get(shape)]
    head = [f"{threads} thread{'s' * (threads != '1')}", *shapes, "load s", "private MB", "peak MB", "cosine"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, entry in values["contestants"].items():
        if why := entry.get("absent") or entry.get("refused"):
            lines.append(f"| {name} | {' '.join(why.split())} |{' |' * (len(head) - 2)}")
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
    ratios = [best_peer(values, threads, shape) for shape in shapes]
    return [
        ("limit of this machine", [f"{ms:.0f}" if ms >= 20 else f"{ms:.1f}" for ms in limit]),
        (f"{NATIVE}, of the limit", [f"{ms / x:.0%}" if x else "" for ms, x in zip(limit, own, strict=True)]),
        ("best peer / ours", [f"{ratio[0]:.2f}" if ratio else "" for ratio in ratios]),
    ]


def peers_line(values: Values, threads: str) -> str:
    """Who the best peer is at each shape, and the mean of the ratios."""
    found = {shape: best_peer(values, threads, shape) for shape in values["times"][threads]}
    names: dict[str, list[str]] = {}
    for shape, ratio in found.items():
        if ratio:
            names.setdefault(ratio[1], []).append(shape)
    if not names:
        return ""
    mean = mean_ratio(values, threads)
    judged = f" Geometric mean over {', '.join(mean[2])}: {mean[0]:.2f}, least {mean[1]:.2f}." if mean else ""
    best_at = "; ".join(f"{name} ({', '.join(shapes)})" for name, shapes in names.items())
    return f"Best peer: {best_at}.{judged}\n"


def first_calls(values: Values, threads: str) -> str:
    """The first call after a pause, of ours and of the peer that is best at it."""
    cells = []
    for shape, found in values.get("first", {}).get(threads, {}).items():
        ratio = best_peer(values, threads, shape, {name: statistics.median(ms) for name, ms in found.items()})
        if ratio:
            own = statistics.median(found[NATIVE])
            cells.append(f"{shape} {_cell([own], ranges=False)} ({_cell([own * ratio[0]], ranges=False)})")
    title = "First call after the turns of the others, ms, and in brackets that of the peer that is best at it"
    return f"{title}: {', '.join(cells)}.\n" if cells else ""


def streams(values: Values) -> str:
    """Tokens per second and core of texts of mixed lengths, 2 threads."""
    (stream,) = (name for name in STREAMS if name in values["tokens"])
    tokens, found = sum(values["tokens"][stream]), medians(values, "2", stream)
    ways = values.get("mixed", {}).get("batches", {})
    cells = [
        f"{name}: {500 * tokens / ms:,.0f}" + (f" ({ways[name]})" if name in ways else "") for name, ms in found.items()
    ]
    note = " and in brackets the size of batches that was the fastest" if ways else ""
    return f"Tokens per second and core, {stream}{note}: {'; '.join(cells)}.\n" if cells else ""


def _cell(ms: list[float], *, ranges: bool) -> str:
    median = statistics.median(ms)
    digits = 0 if median >= 20 else 1
    return f"{median:.{digits}f}" + (f" ({min(ms):.{digits}f}-{max(ms):.{digits}f})" if ranges else "")


def machine_limits(values: Values, threads: str) -> str:
    """The best that the machine was seen to do, and how it was measured."""
    at = best(values, threads)
    shares = [share for found in values.get("others", {}).get(threads, {}).values() for share in found]
    others = f" Other processes used {statistics.median(shares):.0%} of the processors meanwhile." if shares else ""
    rounds = [len(found[NATIVE]) for found in values["times"][threads].values() if NATIVE in found]
    product = f"{at['product_tops']:.2f} in a product of matrices, " if "product_tops" in at else ""
    beyond = f" ({at['beyond_cache_gbs']:.1f} beyond the last-level cache)" if "beyond_cache_gbs" in at else ""
    return (
        f"At best ({unit(values)}): {at['int8_tops']:.2f} TOPS of int8 out of registers, {product}{at['float32_tflops']:.3f} "
        f"TFLOPS of float32, {at['memory_gbs']:.1f} GB/s{beyond}. Medians (ranges) of {max(rounds)} rounds, {min(rounds)} of the "
        f"largest.{others}\n"
    )


def growth(values: Values) -> str:
    """Time per token by tokens per call and by length, and times by threads."""
    lines = []
    each = {int(n) * 128: statistics.median(us) for n, us in values.get("growing", {}).items()}
    lengths = {int(n): statistics.median(us) for n, us in values.get("lengths", {}).items()}
    for title, found in (("tokens per call (texts of 128 tokens)", each), ("tokens of one text", lengths)):
        if found:
            cells = ", ".join(f"{n}: {us:.0f}" for n, us in found.items())
            lines.append(f"{NATIVE}, microseconds per token by {title}: {cells}.\n")
    cells = []
    for shape in values["times"].get("1", {}):
        one, two = (medians(values, threads, shape).get(NATIVE) for threads in ("1", "2"))
        if one and two:
            cells.append(f"{shape}: {one / two:.2f}")
    if cells:
        lines.append(f"{NATIVE}, time with one thread over time with two: {', '.join(cells)}.\n")
    return "\n".join(lines)


# By kernels: the geometric mean of best peer / ours over `JUDGED`, and the least of any.
_MEANS = {"amx": (3.0, 2.3), "avx512vnni": (1.5, 1.2)}


def bars(values: Values) -> str:
    """Each bar for machines of this kind, what was measured, and whether it is met."""
    rows: list[tuple[str, str, bool]] = []
    kernels = values["machine"]["kernels"]

    def ratio(title: str, shape: str, least_ratio: float) -> None:
        if found := best_peer(values, "2", shape):
            rows.append((title, f"{found[0]:.2f} ({found[1]})", found[0] >= least_ratio))

    if kernels in _MEANS and (mean := mean_ratio(values, "2")):
        wanted, wanted_of_each = _MEANS[kernels]
        shapes = ", ".join(mean[2])
        whole = len(mean[2]) == len(JUDGED)
        rows.append(
            (f"best peer / ours, geometric mean over {shapes}: {wanted}", f"{mean[0]:.2f}", whole and mean[0] >= wanted)
        )
        rows.append(
            (f"best peer / ours, none of these below {wanted_of_each}", f"{mean[1]:.2f}", mean[1] >= wanted_of_each)
        )
    if kernels == "amx":
        ratio("best peer / ours, 1x16: 2.3", "1x16", 2.3)
        ratio("best peer / ours, 1x32: 2.3", "1x32", 2.3)
        ratio("best peer / ours, mixed lengths: 3", "mixed", 3.0)
        if reading := values.get("reading", {}).get("2"):
            own = values["times"]["2"][READ][NATIVE]
            times = statistics.median(ms / least for ms, least in zip(own, reading, strict=True))
            title = f"{READ} within 1.15 of reading its weights, in turns"
            rows.append((title, f"{times:.2f} ({statistics.median(reading):.1f} ms)", times <= 1.15))
    found = medians(values, "2", "8x128")
    if kernels == "avx2" and found:
        work = values["work"]["8x128"][0]
        share = work["int8"] / best(values, "2")["int8_tops"] / 1e9 / found[NATIVE]
        rows.append(("8x128: 60 % of the limit of exact AVX2 products", f"{share:.0%}", share >= 0.6))
        if PORTABLE in found:
            times = found[PORTABLE] / found[NATIVE]
            rows.append(("1.2x the portable path, 8x128", f"{times:.2f}", times >= 1.2))
    each = [statistics.median(us) for us in values.get("growing", {}).values()]
    if each:
        middle = (max(each) + min(each)) / 2
        spread = max(each) / middle - 1
        rows.append(("time per token flat within 20 %, 1k to 16k a call", f"+-{spread:.0%}", spread <= 0.2))
    lines = ["| bar | measured | met |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {a} | {b} | {'yes' if c else 'no'} |" for a, b, c in rows)]) + "\n"


def plot(values: Values, path: Path) -> None:
    """Milliseconds of each shape and contestant, and the machine's limit."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(values["times"]), 1, figsize=(11, 4 * len(values["times"])), squeeze=False)
    names = [name for name, entry in values["contestants"].items() if entry.get("loads")]
    for axis, threads in zip(axes[:, 0], values["times"], strict=True):
        shapes = [shape for shape in values["tokens"] if values["times"][threads].get(shape)]
        for column, name in enumerate(names):
            at, times = [], []
            for i, shape in enumerate(shapes):
                if ms := medians(values, threads, shape).get(name):
                    at.append(i + (column + 0.5) * 0.84 / len(names) - 0.42)
                    times.append(ms)
            axis.bar(at, times, 0.8 / len(names), label=name, color=pyplot.get_cmap("tab20")(column))
        limit = [least(values, threads, shape) for shape in shapes]
        axis.hlines(limit, [i - 0.43 for i in range(len(shapes))], [i + 0.43 for i in range(len(shapes))], "k")
        axis.plot([], [], "k", label="limit of the machine")
        axis.set_yscale("log")
        axis.set_xticks(range(len(shapes)), shapes)
        axis.set_ylabel("ms, less is better")
        axis.set_title(f"{values['machine']['cpu']}, {threads} thread{'s' * (threads != '1')}; 475 M parameters")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), fontsize=8, ncols=4, loc="upper center")
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.8 / figure.get_figheight()))
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
