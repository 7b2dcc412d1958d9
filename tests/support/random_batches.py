"""Batch invariance over random batches: every vector is compared with that of the text alone.

    cd tests && python -m support.random_batches BUNDLE --batches 5000 --texts lines.txt

Texts are concatenated lines of a file (default: `data/sentences.txt`, about eighty languages), from one token to the bundle's
limit. Batch k depends only on the seed and k, so a failing batch can be repeated alone.
"""

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moembed.bundle.bundle import Bundle
from moembed.inference.batching import pad
from moembed.inference.session import Session
from moembed.tokenizer.tokenizer import Ids, Tokenizer
from support.folders import DATA

SENTENCES = tuple((DATA / "sentences.txt").read_text("utf-8").splitlines())
THREADS = (1, 2)
LARGEST = 32  # texts per batch
TOKENS = 4096  # tokens per batch, padding included


@dataclass(frozen=True)
class Batch:
    """One batch: `rows` are indices of texts; `extra` columns of `pad_id` are added after the longest text."""

    number: int
    threads: int
    rows: tuple[int, ...]
    extra: int
    pad_id: int


@dataclass(frozen=True)
class Outcome:
    """Number of batches, number of compared vectors, and the vectors that differ in any byte."""

    batches: int
    vectors: int
    differing: tuple[tuple[Batch, int, float], ...]  # batch, text, max-abs

    def __str__(self) -> str:
        shown = "".join(f"\n  {batch}: text {row} differs by {by:.2e}" for batch, row, by in self.differing[:5])
        return f"{len(self.differing)} of {self.vectors} vectors in {self.batches} batches differ{shown}"


def rows_of(tokenizer: Tokenizer, limit: int, texts: Sequence[str], count: int, seed: int) -> list[Ids]:
    """Build rows of 1 to `limit` token ids from concatenated texts; lengths are random on a logarithmic scale."""
    rng = random.Random(seed)
    lengths = [round(limit ** rng.random()) for _ in range(count - 2)]
    rows = []
    for length in [1, limit, *lengths]:
        row: Ids = np.zeros(0, np.int64)
        while len(row) < length:
            words = " ".join(rng.choices(texts, k=1 + length // 16))
            (ids,) = tokenizer.encode([words if rng.random() < 0.9 else words.upper()])
            row = np.concatenate([row, np.asarray(ids, np.int64)])
        rows.append(row[:length])
    return rows


def batches(lengths: Sequence[int], count: int, seed: int, tokens: int = TOKENS) -> Iterator[Batch]:
    """Yield random batches of 1 to 32 texts and at most `tokens` tokens with padding."""
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        longest = rng.randrange(len(lengths))
        fitting = [i for i, length in enumerate(lengths) if length <= lengths[longest]]
        size = rng.randint(1, min(LARGEST, max(1, tokens // lengths[longest])))
        rows = [longest, *rng.choices(fitting, k=size - 1)]
        rng.shuffle(rows)
        yield Batch(number, rng.choice(THREADS), tuple(rows), rng.choice((0, 0, 1, 5, 40)), rng.choice((0, 1, 4711)))


def compare(
    bundle: Bundle, texts: Sequence[str] = SENTENCES, *, pool: int, count: int, seed: int = 0, tokens: int = TOKENS
) -> Outcome:
    """Run `count` batches of `pool` texts; compare with each text alone, on one thread and without padding."""
    rows = rows_of(Tokenizer(bundle), bundle.manifest.max_tokens, texts, pool, seed)
    sessions = {threads: Session(bundle, threads=threads) for threads in THREADS}
    alone: dict[int, np.ndarray] = {}
    vectors, differing = 0, []
    for batch in batches([len(row) for row in rows], count, seed, tokens):
        ids, mask = pad([rows[i] for i in batch.rows], batch.pad_id)
        wide = np.pad(ids, ((0, 0), (0, batch.extra)), constant_values=batch.pad_id)
        found = sessions[batch.threads].run("sentence_embedding", wide, np.pad(mask, ((0, 0), (0, batch.extra))))
        for i, vector in zip(batch.rows, found, strict=True):
            if i not in alone:
                (alone[i],) = sessions[1].run("sentence_embedding", *pad([rows[i]], 0))
            vectors += 1
            if vector.tobytes() != alone[i].tobytes():
                differing.append((batch, i, float(np.abs(vector - alone[i]).max())))
    return Outcome(count, vectors, tuple(differing))


def main() -> None:
    """Compare and print; exit code 1 if a byte differs."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("bundle", type=Path)
    arguments.add_argument("--texts", type=Path, help="UTF-8 file with one text per line")
    arguments.add_argument("--batches", type=int, default=1000)
    arguments.add_argument("--pool", type=int, default=1000, help="number of different texts")
    arguments.add_argument(
        "--tokens", type=int, default=TOKENS, help="maximum number of tokens per batch, padding included"
    )
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    texts = (
        [line for line in options.texts.read_text("utf-8").split("\n") if line.strip()] if options.texts else SENTENCES
    )
    bundle, sizes = (
        Bundle.open(options.bundle),
        {"pool": options.pool, "count": options.batches, "tokens": options.tokens},
    )
    outcome = compare(bundle, texts, seed=options.seed, **sizes)
    print(outcome)
    sys.exit(1 if outcome.differing else 0)


if __name__ == "__main__":
    main()
