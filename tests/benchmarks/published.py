"""What the pages show of the comparison with peers: a table for every kind of machine that was measured, side by side.

`compared/KIND.json` holds one measurement for each kind: the instruction set of the kernels and the processor's name. A new
measurement replaces that of its own kind only.
"""

import json
import re
import shutil
import statistics
from pathlib import Path

from blocks import PAGE, README, Block
from contestants import NATIVE, PEER_OF
from report import Values, first_calls, growth, heading, machine_limits, medians, peers_line, streams, table

COMPARED = Path(__file__).with_name("compared")
PLOTS = PAGE.with_name("benchmarks")
PEERS = Block(PAGE, "peers", "python tests/benchmarks/compare.py --publish")
SHORT = Block(README, "peers", "python tests/benchmarks/compare.py --publish")
# The columns of README's table.
_SHAPES = {"1x16": "one text of 16 tokens", "1x128": "one of 128", "8x128": "8 of 128"}


def kind_of(values: Values) -> str:
    """The kind of machine that was measured, as a file name."""
    machine = values["machine"]
    cpu = re.sub(r"\([^)]*\)|processor|cpu|@.*", " ", machine["cpu"].lower())
    return "-".join([machine["kernels"], *re.findall(r"[a-z0-9]+", cpu)])


def measured() -> dict[str, Values]:
    """Every kind's measurement, the fastest machine first."""
    found = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(COMPARED.glob("*.json"))}
    return dict(sorted(found.items(), key=lambda item: medians(item[1], "2", "8x128")[NATIVE]))


def page_block(found: dict[str, Values]) -> str:
    """What docs/benchmarks.md shows: for each kind the machine, a table of medians for 2 threads, and the plot."""
    parts = []
    for kind, values in found.items():
        parts += [f"### {values['machine']['cpu']}, kernels {values['machine']['kernels']}\n", heading(values)]
        parts += [table(values, "2", ranges=False), peers_line(values, "2"), machine_limits(values, "2")]
        parts += [part for part in (first_calls(values, "2"), streams(values), growth(values)) if part]
        parts.append(
            f"![Milliseconds of each contestant, for every shape, and the limit of the machine](benchmarks/{kind}.png)\n"
        )
        parts.append(f"Ranges, and the same with one thread: `tests/benchmarks/compared/{kind}.md`.\n")
    return "\n".join(parts)


def short_block(found: dict[str, Values]) -> str:
    """What README shows: ours and the fastest mode of each peer, on the fastest machine."""
    values = next(iter(found.values()))
    times = {shape: medians(values, "2", shape) for shape in _SHAPES}
    head = [f"{values['machine']['cpu']}, 2 threads; ms", *_SHAPES.values(), "load, s", "private MB", "cosine to fp32"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    fastest = sorted(times["8x128"], key=lambda name: times["8x128"][name])
    modes = {PEER_OF[name]: name for name in reversed(fastest) if PEER_OF[name]}
    for name in (NATIVE, *sorted(modes.values(), key=fastest.index)):
        entry = values["contestants"][name]
        cells = [f"{times[shape][name]:.0f}" for shape in _SHAPES]
        cells += [f"{statistics.median(one['load_s'] for one in entry['loads']):.2f}"]
        cells += [f"{statistics.median(one['used_mb'] for one in entry['loads']):.0f}", f"{entry['cosine']:.4f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def publish(folder: Path) -> None:
    """Take the measurement in a folder for its kind of machine, and rewrite both pages."""
    kind = kind_of(json.loads((folder / "compare.json").read_text("utf-8")))
    for name, target in (("json", COMPARED), ("md", COMPARED), ("png", PLOTS)):
        target.mkdir(exist_ok=True)
        shutil.copyfile(folder / f"compare.{name}", target / f"{kind}.{name}")
    found = measured()
    PEERS.write(page_block(found))
    SHORT.write(short_block(found))
