"""Throughput of processes with one thread each, and what it means for 10^9 and 10^11 texts: the tables of docs/scale.md.

Rates are tokens per second of CPU time, which is what core-hours count. Other programs that run at the same time take wall time,
which the table shows as the share that the processes had, and caches, which it does not.
`python tests/benchmarks/scale.py` measures the built-in model; `--model BUNDLE --name NAME` another one, such as the published
size. A measurement replaces that of the same name in `scale.json`, from which both tables are written.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from blocks import ROOT, Block

PAGE = ROOT / "docs" / "scale.md"
RESULTS = Path(__file__).with_name("scale.json")
THROUGHPUT = Block(PAGE, "throughput", "python tests/benchmarks/scale.py")
PLAN = Block(PAGE, "plan", "python tests/benchmarks/scale.py")
BUILT_IN = "built-in model"
TOKENS = (128, 480)  # of a text, prompt included
PROCESSES = (1, 2)
# Assumptions of the plan, which the page names.
TEXT_TOKENS, TEXT_BYTES, NODE_CORES, NODES, FOUND_SHARE = 200, 800, 32, {10**9: 10, 10**11: 1000}, 0.8
_BATCH_TOKENS, _COUNT = 1 << 14, 1024
_PRECISIONS = {
    "float32": (4, 0),
    "float16": (2, 0),
    "int8": (1, 4),
    "ubinary": (1 / 8, 4),
}  # bytes a component, of a scale


def texts_of(tokens: int, embedder: Any) -> list[str]:
    """Return texts of about so many tokens, of words of these pages."""
    words = " ".join(path.read_text("utf-8") for path in sorted((ROOT / "docs").glob("*.md"))).split()
    size = tokens
    while True:
        texts = [" ".join(words[first : first + size]) for first in range(0, len(words) - size, 37)][:_COUNT]
        counts = embedder.count_tokens(texts, prompt=embedder.prompt_for("document"))
        if sum(counts) <= tokens * len(counts):
            return [text for text, count in zip(texts, counts, strict=True) if count <= embedder.max_tokens]
        # As many words as these texts' own rate allows, but at least a few less.
        size = min(int(size * tokens * len(counts) / sum(counts)), size - max(size // 50, 1))


def work() -> None:
    """Embed for some seconds, in a process of its own."""
    from moembed import Embedder

    task = json.loads(sys.stdin.readline())
    embedder = Embedder.from_pretrained(task["model"], threads=1, spin=False)
    texts = texts_of(task["tokens"], embedder)
    counts = embedder.count_tokens(texts, prompt=embedder.prompt_for("document"))
    batch = max(_BATCH_TOKENS // task["tokens"], 1)
    embedder.encode_document(texts[:batch])
    print("ready", flush=True)
    sys.stdin.readline()
    start, used, computed, first = time.perf_counter(), time.process_time(), 0, 0
    while time.process_time() - used < task["seconds"]:
        part = slice(first, first + batch)
        embedder.encode_document(texts[part])
        computed += sum(counts[part])
        first = 0 if first + batch >= len(texts) else first + batch
    used, took = time.process_time() - used, time.perf_counter() - start
    answer = {"rate": computed / used, "share": used / took, "tokens": sum(counts) / len(counts)}
    print(json.dumps(answer), flush=True)


def measured(model: str | None, tokens: int, processes: int, seconds: float) -> dict[str, float]:
    """Return tokens per CPU second of all processes together, the least share of a core, and the mean tokens of a text."""
    command = [sys.executable, __file__, "--worker"]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    task = json.dumps({"model": model, "tokens": tokens, "seconds": seconds})

    def tell(line: str) -> list[str]:
        for process in running:
            print(line, file=process.stdin, flush=True)
        return [process.stdout.readline() for process in running]

    try:
        if set(tell(task)) != {"ready\n"}:
            raise SystemExit("a process did not start")
        answers = [json.loads(line) for line in tell("go")]
    finally:
        for process in running:
            process.stdin.close()
            process.wait()
    rate, share = sum(answer["rate"] for answer in answers), min(answer["share"] for answer in answers)
    return {"rate": rate, "share": share, "tokens": answers[0]["tokens"]}


def measure(model: str | None, seconds: float) -> dict[str, Any]:
    """Measure a model for all lengths and numbers of processes."""
    from moembed import Embedder
    from moembed.inference.cpu import cpu_name

    embedder = Embedder.from_pretrained(model, threads=1)
    cells = {
        f"{tokens}": {f"{number}": measured(model, tokens, number, seconds) for number in PROCESSES}
        for tokens in TOKENS
    }
    return {"cpu": cpu_name(), "cpus": os.cpu_count(), "kernels": embedder.kernels, "dim": embedder.dim, "cells": cells}


def throughput_table(results: dict[str, Any]) -> str:
    """Return the table of rates."""
    head = (
        "model, processor | tokens a text | tokens/s, 1 process | 2 processes | efficiency | core-hours per 10^9 tokens "
        "| share of a core"
    )
    lines = [f"| {head} |", "|---|---|---|---|---|---|---|"]
    for name, result in results.items():
        for cells in result["cells"].values():
            one, two = cells["1"]["rate"], cells["2"]["rate"]
            hours = core_hours(10**9, two / 2)
            shares = f"{cells['1']['share']:.2f}, {cells['2']['share']:.2f}"
            rates = f"{one:,.0f} | {two:,.0f} | {two / 2 / one:.2f} | {hours:,.0f} | {shares}"
            numbers = f"{cells['1']['tokens']:.0f} | {rates}"
            lines.append(f"| {name}, {result['cpu']}, kernels `{result['kernels']}` | {numbers} |")
    return "\n".join(lines) + "\n"


def core_hours(tokens: float, rate: float) -> float:
    """Return the hours of one core for so many tokens at `rate` tokens per second."""
    return tokens / rate / 3600


def plan_table(results: dict[str, Any]) -> str:
    """Return the plan for 10^9 and 10^11 texts, from the rate of a core when all cores of the machine compute."""
    sizes = " | ".join(_PRECISIONS)
    lines = [f"| model | texts | core-hours | nodes | hours | input per node | {sizes} |"]
    lines.append("|---" * (6 + len(_PRECISIONS)) + "|")
    for name, result in results.items():
        rate = result["cells"][f"{TOKENS[0]}"]["2"]["rate"] / 2
        for texts, nodes in NODES.items():
            hours = core_hours(texts * TEXT_TOKENS, rate)
            took = hours / (nodes * NODE_CORES * FOUND_SHARE)
            flow = texts * TEXT_BYTES / nodes / (took * 3600)
            stored = [texts * (result["dim"] * size + scale) for size, scale in _PRECISIONS.values()]
            cells = [
                name,
                f"10^{len(str(texts)) - 1}",
                f"{hours:,.0f}",
                f"{nodes:,}",
                f"{took:,.1f}",
                f"{flow / 1e6:.2f} MB/s",
            ]
            lines.append(f"| {' | '.join([*cells, *(terabytes(size) for size in stored)])} |")
    return "\n".join(lines) + "\n"


def terabytes(size: float) -> str:
    """Return a number of bytes in TB."""
    return f"{size / 1e12:,.2f} TB"


def main() -> None:
    """Measure, and write both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--model", help="bundle (default: the built-in model)")
    parser.add_argument("--name", default=BUILT_IN, help="name of the model in the tables")
    parser.add_argument("--seconds", type=float, default=8.0, help="of CPU time, of each measurement")
    parser.add_argument("--tables", action="store_true", help="write the tables anew, without a measurement")
    arguments = parser.parse_args()
    if arguments.worker:
        work()
        return
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    if not arguments.tables:
        results[arguments.name] = measure(arguments.model, arguments.seconds)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    THROUGHPUT.write(throughput_table(results))
    PLAN.write(plan_table(results))


if __name__ == "__main__":
    main()
