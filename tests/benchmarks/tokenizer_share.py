"""Share of the tokenizer in the time of a vector, by model: a table of docs/benchmarks.md.

    python tests/benchmarks/tokenizer_share.py FILE_OF_TEXTS BUNDLE... [--publish]

English texts of the file, cut to 80 characters as queries and joined to 1,000 as passages: a query alone, and 64 passages in one
call. The bundles take turns with and without the network. `tokenizers` cuts WordPiece, the native library Unigram.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from blocks import PAGE, Block
from common import SPINNING_SECONDS, texts_of_file

from moembed import Embedder
from moembed.inference.cpu import cpu_name

TABLE = Block(PAGE, "tokenizers", "python tests/benchmarks/tokenizer_share.py FILE_OF_TEXTS BUNDLE... --publish")
QUERY, PASSAGE, COUNT, ROUNDS = 80, 1_000, 64, 15


def samples(texts: list[str]) -> tuple[list[str], list[str]]:
    """Queries and passages, `COUNT` of each."""
    queries = [text[:QUERY] for text in texts if len(text) >= QUERY][:COUNT]
    whole = " ".join(texts)
    passages = [whole[first : first + PASSAGE] for first in range(0, COUNT * PASSAGE, PASSAGE)]
    return queries, passages


def milliseconds(call: Callable[[], object]) -> float:
    """Time of a call after one that does not count."""
    call()
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def measure(model: Embedder, queries: list[str], passages: list[str], number: int) -> list[float]:
    """Milliseconds of a round: tokens of a query, its vector, tokens of the passages, their vectors."""
    query, prompt = queries[number % len(queries)], model.prompt_for("document")
    time.sleep(SPINNING_SECONDS)
    return [
        milliseconds(lambda: list(model.tokenizer.encode([query]))),  # it yields
        milliseconds(lambda: model.encode_query(query, overlong="truncate")),
        milliseconds(lambda: list(model.tokenizer.encode(passages))),
        milliseconds(lambda: model.encode(passages, prompt=prompt, overlong="truncate", show_progress_bar=False)),
    ]


def table(models: list[Embedder], rounds: list[list[list[float]]]) -> str:
    """Return the table; `rounds` holds the rounds of each model."""
    lines = [
        f"{cpu_name()}, {models[0].threads} threads; medians of {ROUNDS} rounds in turns.\n",
        f"| model | tokenizer | a query: tokens, ms | vector, ms | share | {COUNT} passages: tokens, ms | vectors, ms | share |",
        "|---" * 8 + "|",
    ]
    for model, found in zip(models, rounds, strict=True):
        of_query, query, of_passages, passages = (statistics.median(column) for column in zip(*found, strict=True))
        cells = [f"{of_query:.3f}", f"{query:.2f}", f"{100 * of_query / query:.1f} %"]
        cells += [f"{of_passages:.1f}", f"{passages:.0f}", f"{100 * of_passages / passages:.1f} %"]
        lines.append(f"| {model.bundle.manifest.name} | {model.tokenizer.backend} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print the table, and publish it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "texts", type=Path, help="a text a line, or JSONL with text or t, and perhaps the language in l"
    )
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--publish", action="store_true", help="rewrite docs/benchmarks.md")
    chosen = parser.parse_args()
    queries, passages = samples(list(texts_of_file(chosen.texts, language="en")))
    models = [Embedder.from_pretrained(bundle) for bundle in chosen.bundles]
    rounds: list[list[list[float]]] = [[] for _ in models]
    for number in range(ROUNDS):
        for model, found in zip(models, rounds, strict=True):
            found.append(measure(model, queries, passages, number))
    content = table(models, rounds)
    print(content)
    if chosen.publish:
        TABLE.write(content)


if __name__ == "__main__":
    main()
