"""Throughput of one and of two actors of Ray Data on this machine: the table of docs/scale.md beside that of plain processes.

    python tests/benchmarks/ray_actors.py --publish

Each actor embeds blocks with one thread. Its rate is the tokens of its blocks over the time from the start of its first block
to the end of its last, so that it includes the time in which Ray hands out blocks, and not the start of the actor. `--publish`
writes docs/scale.md.
"""

import argparse
import os
import time
from collections import defaultdict
from typing import Any

import pyarrow as pa
import ray
from blocks import ROOT, Block
from common import machine
from scale import texts_of

from moembed import Embedder
from moembed.integrations.ray import EmbedBatches

TABLE = Block(ROOT / "docs" / "scale.md", "actors", "python tests/benchmarks/ray_actors.py --publish")
TOKENS, BLOCK_ROWS, ACTORS = 128, 128, (1, 2)


def timed() -> type[EmbedBatches]:
    """Return a subclass that tells when it computed a block; of a function, so that Ray sends the class itself."""

    class Timed(EmbedBatches):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self(pa.table({"text": ["the first call"] * 8, "tokens": pa.array([0] * 8, pa.int64())}))

        def __call__(self, batch: Any) -> Any:
            begin = time.time()
            made = super().__call__(batch)
            tokens = sum(batch["tokens"].to_pylist())
            columns = {"pid": [os.getpid()], "begin": [begin], "end": [time.time()], "tokens": [tokens]}
            rows = [made.num_rows - made["embedding"].null_count]
            return pa.table(columns | {"rows": rows})

    return Timed


def rates(blocks: list[dict[str, Any]]) -> list[float]:
    """Return the tokens per second of each actor.

    Args:
        blocks: `pid`, `begin`, `end` and `tokens` of each block.
    """
    own = defaultdict(list)
    for block in blocks:
        own[block["pid"]].append(block)
    return [
        sum(block["tokens"] for block in some)
        / (max(block["end"] for block in some) - min(block["begin"] for block in some))
        for some in own.values()
    ]


def measured(table: pa.Table, actors: int) -> tuple[float, int]:
    """Return the tokens per second of so many actors together, and the number of vectors."""
    dataset = ray.data.from_arrow(table).repartition(target_num_rows_per_block=BLOCK_ROWS).materialize()
    pool = ray.data.ActorPoolStrategy(size=actors)
    made = dataset.map_batches(timed(), batch_format="pyarrow", batch_size=None, compute=pool, num_cpus=1)
    blocks = made.take_all()
    found = rates(blocks)
    if len(found) != actors:
        raise SystemExit(f"{len(found)} of {actors} actors computed blocks: pass more --rows")
    return sum(found), sum(block["rows"] for block in blocks)


def rows_of(results: dict[int, tuple[float, int]], alone: str) -> str:
    """Return the table.

    Args:
        results: tokens per second and vectors by number of actors.
        alone: what was measured, for the line above.
    """
    lines = [alone, "", "| actors | tokens/s | of an actor | efficiency | vectors |", "|---:|---:|---:|---:|---:|"]
    for actors, (rate, vectors) in results.items():
        each = rate / actors
        lines.append(f"| {actors} | {rate:,.0f} | {each:,.0f} | {each / results[1][0]:.2f} | {vectors:,} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print the table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4096, help="texts for each actor")
    parser.add_argument("--publish", action="store_true", help="rewrite docs/scale.md")
    options = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    embedder = Embedder.from_pretrained(threads=1)
    texts = texts_of(TOKENS, embedder)
    counts = embedder.count_tokens(texts, prompt=embedder.prompt_for("document"))
    ray.init(num_cpus=max(ACTORS) + 1, include_dashboard=False, logging_level="error", log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    results = {}
    for actors in ACTORS:
        rows = [row % len(texts) for row in range(options.rows * actors)]
        table = pa.table({"text": [texts[row] for row in rows], "tokens": [counts[row] for row in rows]})
        results[actors] = measured(table, actors)
    ray.shutdown()
    alone = (
        f"Built-in model, {machine(embedder)}, {sum(counts) / len(counts):.0f} tokens a text, blocks of "
        f"{BLOCK_ROWS} rows."
    )
    found = rows_of(results, alone)
    print(found)
    if options.publish:
        TABLE.write(found)


if __name__ == "__main__":
    main()
