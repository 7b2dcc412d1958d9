"""Speed and memory of corpora, against `encode_document` on the same texts in memory.

    python tests/benchmarks/corpus.py --write
    python tests/benchmarks/corpus.py --rows 100000 --rounds 3
    python tests/benchmarks/corpus.py --memory --write
    python tests/benchmarks/corpus.py --readers --write

Speed: texts of 5 to 20 words, none twice. Each round runs every format in turn, in a process of its own, and computes the
share of the throughput in memory. Input is JSONL, so that reading it is part of every share. CPU time is that of all threads,
reading and writing included: it shows the loss also where other programs disturb the clock.

Memory: rows that repeat 64 texts, which takes minutes and not hours, since a text that occurs twice in a block is computed once.
The model is the built-in one, and all rows go the whole way. The many rows are written as `ubinary`, for the room on the disk;
vectors that are written are not kept (Linux). The input is one file, of Parquet with one row group or of JSONL.

Without `--write` tables are printed. With it, they are put into docs/corpora.md.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from blocks import ROOT, Block
from common import machine

from moembed import Embedder

PAGE = ROOT / "docs" / "corpora.md"
COMMAND = "python tests/benchmarks/corpus.py"
SPEED = Block(PAGE, "speed", f"{COMMAND} --write")
MEMORY = Block(PAGE, "memory", f"{COMMAND} --memory --write")
READERS = Block(PAGE, "readers", f"{COMMAND} --readers --write")
FORMATS = ("parquet", "npy", "jsonl", "csv")
PRECISIONS = ("float32", "float16", "int8", "uint8", "ubinary")
IN_MEMORY = "memory"
FEW, MANY, DISTINCT = 100_000, 10_000_000, 64
# Measures without the start of the process and the opening of the model, as a long run has them.
SCRIPT = """
import json, re, sys, time
from pathlib import Path
from moembed import Embedder
from moembed.corpus import Options, Selection, embed_files
form, precision, source, output, threads = sys.argv[1:]
def peak():  # of this process alone: ru_maxrss begins with that of the process that started it
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
model = Embedder.from_pretrained(threads=int(threads) or None)
model.encode_document(["warm up"])
opened = peak()
if form == "memory":
    texts = [json.loads(line)["text"] for line in open(source, encoding="utf-8")]
    start, used = time.perf_counter(), time.process_time()
    model.encode_document(texts, show_progress_bar=False)
else:
    options = Options(selection=Selection(), prompt=model.prompt_for("document"), form=form, precision=precision)
    start, used = time.perf_counter(), time.process_time()
    embed_files([source], output, model, options, show=False)
seconds, used = time.perf_counter() - start, time.process_time() - used
print(json.dumps([seconds, used, opened, peak()]))
"""


def texts(rows: int) -> Iterator[str]:
    """Yield texts of 5 to 20 words, none twice."""
    rng = np.random.default_rng(0)
    words = [f"w{number:x}" for number in range(5000)]
    for row in range(rows):
        chosen = rng.integers(0, len(words), int(rng.integers(5, 20)))
        yield f"{row} " + " ".join(words[i] for i in chosen)


def write_jsonl(path: Path, lines: Iterator[str]) -> None:
    """Write texts as JSONL with ids."""
    with path.open("w", encoding="utf-8") as file:
        for row, text in enumerate(lines):
            file.write(f'{{"id": {row}, "text": {json.dumps(text)}}}\n')


def write_parquet(path: Path, lines: Iterator[str]) -> None:
    """Write texts as Parquet with ids, in one row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = pa.array(lines, pa.string())
    table = pa.table({"id": np.arange(len(column)), "text": column})
    pq.write_table(table, path, row_group_size=len(column))


class Measured(NamedTuple):
    """Measurements of a process: seconds, of the clock and of CPUs, memory in MiB, and bytes of the output."""

    seconds: float
    cpu: float
    opened: float
    peak: float
    size: int


def measure(form: str, source: Path, folder: Path, threads: int, precision: str = "float32") -> Measured:
    """Run a format in a process of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as output:
        argv = [sys.executable, "-c", SCRIPT, form, precision, str(source), output, str(threads)]
        found = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
        return Measured(*found, sum(path.stat().st_size for path in Path(output).glob("rows-*")))


def speed(rows: int, rounds: int, threads: int) -> str:
    """Return a table: share of the throughput in memory (median of rounds), and bytes a row."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_jsonl(folder / "texts.jsonl", texts(rows))
        found: dict[str, list[Measured]] = {form: [] for form in (IN_MEMORY, *FORMATS)}
        for _ in range(rounds):
            for form, results in found.items():
                results.append(measure(form, folder / "texts.jsonl", folder, threads))
    lines = [
        f"\n{machine(Embedder.from_pretrained())}. {rows:,} texts of 5 to 20 words from JSONL, median of {rounds} rounds,",
        "without the opening of the model.\n",
        "| output | rows/s | of `encode_document` in memory | by CPU time | bytes a row |",
        "|---|---|---|---|---|",
    ]
    for form, results in found.items():
        pairs = list(zip(found[IN_MEMORY], results, strict=True))
        shares = [
            f"{100 * statistics.median(share):.0f} %"
            for share in (
                [base.seconds / own.seconds for base, own in pairs],
                [base.cpu / own.cpu for base, own in pairs],
            )
        ]
        name = "in memory" if form == IN_MEMORY else form
        rate = rows / statistics.median(own.seconds for own in results)
        size = f"{results[0].size / rows:,.0f}" if results[0].size else ""
        lines.append(f"| {name} | {rate:,.0f} | {' | '.join(shares)} | {size} |")
    return "\n".join([*lines, "", ""])


def memory(threads: int) -> str:
    """Return a table of peak memory for few and for many rows."""
    lines = [
        f"\n{machine(Embedder.from_pretrained())}. The rows repeat {DISTINCT} texts, so that computing takes minutes. The output",
        f"is Parquet, of float32 for {FEW:,} rows and of `ubinary` for {MANY:,}. The input is one file, of Parquet in one row",
        "group.\n",
        f"| input | model open | peak, {FEW:,} rows | peak, {MANY:,} rows |",
        "|---|---|---|---|",
    ]
    for form, write in (("parquet", write_parquet), ("jsonl", write_jsonl)):
        found = []
        for rows, precision in ((FEW, "float32"), (MANY, "ubinary")):
            with tempfile.TemporaryDirectory() as name:
                source = Path(name) / f"texts.{form}"
                write(source, (f"text {row % DISTINCT}" for row in range(rows)))
                found.append(measure("parquet", source, Path(name), threads, precision))
        peaks = " | ".join(f"{own.peak:.0f} MiB" for own in found)
        lines.append(f"| {form} | {found[0].opened:.0f} MiB | {peaks} |")
    return "\n".join([*lines, "", ""])


def reader_table() -> str:
    """Return the table of what readers see of each precision."""
    sys.path.insert(0, str(ROOT / "tests"))
    from moembed.corpus import Options, Selection, embed_files
    from support.parquet_readers import installed, read_vectors

    model, names = Embedder.from_pretrained(), installed()
    lines = [f"| precision | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "d.jsonl"
        source.write_text('{"text": "a"}\n')
        for precision in PRECISIONS:
            for fixed in (True, False):
                output = f"{name}/{precision}-{fixed}"
                options = Options(selection=Selection(), prompt="", dim=8, precision=precision, fixed=fixed)
                embed_files([str(source)], output, model, options, show=False)
                (path,) = Path(output).glob("*.parquet")
                expected = model.encode(["a"], prompt="", truncate_dim=8, precision=precision)
                kinds = [_kind(read_vectors, reader, path, expected) for reader in names]
                lines.append(f"| {precision}{'' if fixed else ', plain'} | {' | '.join(kinds)} |")
    return "\n".join(["", *lines, "", ""])


def _kind(read: Callable[[str, Path], tuple[list, str]], reader: str, path: Path, expected: np.ndarray) -> str:
    """Return the type that a reader sees, or that it refuses the file or reads other values."""
    try:
        values, kind = read(reader, path)
    except Exception as error:
        return f"refused ({type(error).__name__})"
    try:
        equal = np.array_equal(np.array(values, np.float64), expected.astype(np.float64))
    except (TypeError, ValueError):
        equal = False
    return f"`{kind}`" + ("" if equal else ", **other values**")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0, help="threads per call; 0 for the number of CPUs")
    parser.add_argument("--memory", action="store_true", help="the table of memory, which takes minutes")
    parser.add_argument("--readers", action="store_true", help="the table of readers")
    parser.add_argument("--write", action="store_true", help="write the table into docs/corpora.md")
    arguments = parser.parse_args()
    if arguments.readers:
        block, table = READERS, reader_table()
    elif arguments.memory:
        block, table = MEMORY, memory(arguments.threads)
    else:
        block, table = SPEED, speed(arguments.rows, arguments.rounds, arguments.threads)
    if arguments.write:
        block.write(table)
    else:
        print(table)


if __name__ == "__main__":
    main()
