"""Speed and memory of corpora, against `encode_document` on the same texts in memory.

    python tests/benchmarks/corpus.py
    python tests/benchmarks/corpus.py --rows 100000 --rounds 3
    python tests/benchmarks/corpus.py --readers

Texts are lines of the built-in test data, numbered so that all differ. Each round runs every format in turn, in a process of its
own, and computes the share of the throughput in memory. `--readers` writes the table of readers in `docs/corpora.md`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from blocks import Block

ROOT = Path(__file__).resolve().parents[2]
READERS = Block(ROOT / "docs" / "corpora.md", "readers", "python tests/benchmarks/corpus.py --readers")
FORMATS = ("parquet", "npy", "jsonl", "csv")
PRECISIONS = ("float32", "float16", "int8", "uint8", "ubinary")
IN_MEMORY = "memory"
# Measures without the start of the process and the opening of the model, as a long run has them.
SCRIPT = """
import json, resource, sys, time
from moembed import Embedder
from moembed.corpus import Options, Selection, embed_files
form, source, output, threads = sys.argv[1:]
model = Embedder.from_pretrained(threads=int(threads) or None)
model.encode_document(["warm up"])
if form == "memory":
    texts = [json.loads(line)["text"] for line in open(source, encoding="utf-8")]
    start = time.perf_counter()
    model.encode_document(texts, show_progress_bar=False)
else:
    options = Options(selection=Selection(), prompt=model.prompt_for("document"), form=form)
    start = time.perf_counter()
    embed_files([source], output, model, options, show=False)
seconds = time.perf_counter() - start
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def write_texts(path: Path, rows: int) -> None:
    """Write texts as JSONL: of 5 to 60 words, none twice."""
    rng = np.random.default_rng(0)
    words = [f"w{number:x}" for number in range(5000)]
    with path.open("w", encoding="utf-8") as file:
        for row in range(rows):
            chosen = rng.integers(0, len(words), int(rng.integers(5, 60)))
            file.write(json.dumps({"id": row, "text": f"{row} " + " ".join(words[i] for i in chosen)}) + "\n")


def measure(form: str, source: Path, folder: Path, threads: int) -> tuple[float, float, int]:
    """Return seconds, peak memory in MiB, and bytes of the output."""
    with tempfile.TemporaryDirectory(dir=folder) as output:
        argv = [sys.executable, "-c", SCRIPT, form, str(source), output, str(threads)]
        seconds, peak = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
        size = sum(path.stat().st_size for path in Path(output).glob("rows-*"))
    return seconds, peak, size


def speed(rows: int, rounds: int, threads: int) -> None:
    """Print a table: share of the throughput in memory (median of rounds), peak memory, bytes a row."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_texts(folder / "texts.jsonl", rows)
        found: dict[str, list[tuple[float, float, int]]] = {form: [] for form in (IN_MEMORY, *FORMATS)}
        for _ in range(rounds):
            for form, results in found.items():
                results.append(measure(form, folder / "texts.jsonl", folder, threads))
    print(f"{rows:,} rows\n\n| output | rows/s | of in memory | peak MiB | bytes a row |\n|---|---|---|---|---|")
    for form, results in found.items():
        shares = [base[0] / own[0] for base, own in zip(found[IN_MEMORY], results, strict=True)]
        seconds, peak, size = (statistics.median(column) for column in zip(*results, strict=True))
        share = f"{100 * statistics.median(shares):.0f} %"
        print(f"| {form} | {rows / seconds:,.0f} | {share} | {peak:.0f} | {size / rows:,.0f} |")


def reader_table() -> str:
    """Return the table of what readers see of each precision."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from parquet_readers import READERS as NAMES
    from parquet_readers import read_vectors

    from moembed import Embedder
    from moembed.corpus import Options, Selection, embed_files

    model = Embedder.from_pretrained()
    lines = [f"| precision | {' | '.join(NAMES)} |", f"|---|{'---|' * len(NAMES)}"]
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "d.jsonl"
        source.write_text('{"text": "a"}\n')
        for precision in PRECISIONS:
            for fixed in (True, False):
                output = f"{name}/{precision}-{fixed}"
                options = Options(selection=Selection(), prompt="", dim=8, precision=precision, fixed=fixed)
                embed_files([str(source)], output, model, options, show=False)
                (path,) = Path(output).glob("*.parquet")
                kinds = [f"`{read_vectors(reader, path)[1]}`" for reader in NAMES]
                lines.append(f"| {precision}{'' if fixed else ', plain'} | {' | '.join(kinds)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="threads per call; 0 for the number of CPUs")
    parser.add_argument("--readers", action="store_true", help="write the table of readers")
    arguments = parser.parse_args()
    if arguments.readers:
        READERS.write(reader_table() + "\n")
    else:
        speed(arguments.rows, arguments.rounds, arguments.threads)


if __name__ == "__main__":
    main()
