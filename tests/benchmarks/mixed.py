"""Texts of mixed lengths, each contestant with the batches that suit it best."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import SPINNING_SECONDS, texts_of_file
from contestants import Batches, Contestant, workers
from state import State

from moembed.embedder import DEFAULT_BATCH_SIZE
from moembed.inference.batching import plan
from moembed.tokenizer.tokenizer import Tokenizer
from moembed.verify.probes import probe_texts

MIXED = "mixed"
TOKENS = "by tokens"  # batches as `Embedder` plans them
BATCHES = (TOKENS, "1", "4", "16", "32")
_TRIED = 10  # one text of so many is enough to choose


def texts_of(path: Path | None) -> list[str]:
    """Texts of a file, see `texts_of_file`; without a file, the probe texts of `moembed verify`."""
    texts = probe_texts() if path is None else list(texts_of_file(path))
    if not texts:
        raise SystemExit(f"{path} has no text: name another file")
    return texts


def rows_of(path: Path | None, count: int, tokenizer: Tokenizer, limit: int = 512) -> list[list[int]]:
    """Ids of `count` texts drawn from a file, or of all if it has fewer, the longest first."""
    texts = texts_of(path)
    order = np.random.default_rng(0).permutation(len(texts))[:count]
    rows = [ids[:limit].tolist() for index in order for ids in tokenizer.encode([texts[index]])]
    return sorted(rows, key=len, reverse=True)


def batches_of(rows: Sequence[list[int]], way: str) -> Batches:
    """Batches of sorted texts: of so many texts, or `by tokens`."""
    if way == TOKENS:
        parts = plan([len(row) for row in rows], batch_size=DEFAULT_BATCH_SIZE)
        return [[rows[i] for i in part] for part in parts]
    return [list(rows[i : i + int(way)]) for i in range(0, len(rows), int(way))]


def measure_mixed(
    able: list[Contestant], sources: dict[str, Path], state: State, rows: list[list[int]], threads: int, rounds: int
) -> None:
    """Milliseconds for all texts, in turn; what a contestant's best batches are is found out first."""
    times, chosen, tried = state.at("times", str(threads), MIXED), state.at(MIXED, "batches"), state.at(MIXED, "tried")
    if all(len(times.get(one.name, [])) >= rounds for one in able):
        return
    with workers(able, sources, threads, sources["logs"]) as started:
        for name, worker in started.items():
            if name not in chosen:
                # Twice, since the first time pays for memory and for shapes that a program had not seen.
                passes = [
                    {way: worker.milliseconds(batches_of(rows[::_TRIED], way))[1] for way in BATCHES} for _ in range(2)
                ]
                found = {way: min(one[way] for one in passes) for way in BATCHES}
                tried[name] = {way: round(ms, 1) for way, ms in found.items()}
                chosen[name] = min(found, key=lambda way: found[way])
                state.save()
        for number in range(rounds):
            for name, worker in started.items():
                measured = times.setdefault(name, [])
                if len(measured) > number:
                    continue
                time.sleep(SPINNING_SECONDS)
                measured.append(round(worker.milliseconds(batches_of(rows, chosen[name]))[1], 1))
                state.save()
            print(threads, MIXED, {name: ms[-1] for name, ms in times.items()}, file=sys.stderr)
