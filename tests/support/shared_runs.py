"""Runs into folders for tests of engines: a corpus, its local run, and what must be equal."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from moembed import Embedder
from moembed.corpus.rows import Selection
from moembed.corpus.runs import Options, Result, embed_files

ROWS, SHARD_ROWS = 600, 50


def write_corpus(folder: Path, rows: int = ROWS, length: int = 1) -> Path:
    """Write two Parquet files with ids, texts that `length` makes longer, and some rows that cannot be embedded."""
    folder.mkdir()
    texts = [
        f"text {row} of the corpus, with the number {row * row}" + " and more of it" * length for row in range(rows)
    ]
    for row in range(7, rows, 97):
        texts[row] = None
    for row in range(13, rows, 151):
        texts[row] = "word " * 700
    table = pa.table({"id": [f"id-{row}" for row in range(rows)], "text": texts})
    cut = rows * 2 // 5  # within a shard
    pq.write_table(table.slice(0, cut), folder / "a.parquet")
    pq.write_table(table.slice(cut), folder / "b.parquet")
    return folder


def options(**changes) -> Options:
    given = {"selection": Selection(), "prompt": "passage: ", "on_error": "skip", "shard_rows": SHARD_ROWS}
    return Options(**(given | changes))


def run(corpus: Path, output: Path, embedder: Embedder, compute=None, **changes) -> Result:
    return embed_files([str(corpus)], str(output), embedder, options(**changes), compute=compute, show=False)


def content(output: Path) -> dict[str, bytes]:
    """Return all that a run has to repeat: shards, rejects and digests of ids by their paths."""
    own = output / "_moembed"
    paths = [*output.glob("*.*"), *(own / "rejects").glob("*"), *(own / "ids").glob("*"), *(own / "done").glob("*")]
    return {str(path.relative_to(output)): path.read_bytes() for path in paths}


def indices(output: Path) -> list[int]:
    """Return the rows that have a vector or are rejected, in the order of the shards."""
    found = []
    for path in sorted(output.glob("*.parquet")):
        found += pq.read_table(path)["index"].to_pylist()
    for path in (output / "_moembed" / "rejects").glob("*"):
        found += [json.loads(line)["index"] for line in path.read_text().splitlines()]
    return sorted(found)
