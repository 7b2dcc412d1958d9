"""Batches under a token budget: sorted by length so that little is padding, results in the caller's order."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from moembed.tokenizer.tokenizer import Ids

# Measured: throughput no longer grows beyond about a thousand tokens a call, while memory and latency do.
TOKENS_PER_CALL = 1024


def plan(lengths: Sequence[int], *, batch_size: int, tokens_per_call: int = TOKENS_PER_CALL) -> Iterator[list[int]]:
    """Group texts into batches.

    Args:
        lengths: tokens of each text.
        batch_size: most texts of a batch.
        tokens_per_call: most tokens of a batch, padding included; a longer text is a batch of its own.

    Yields:
        Indices into `lengths`, longest texts first, so that the largest batch shows early whether memory suffices.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        widest = lengths[batch[0]] if batch else lengths[index]
        if batch and (len(batch) == batch_size or (len(batch) + 1) * widest > tokens_per_call):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def pad(rows: Sequence[Ids], pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Right-pad id rows to `[batch, longest]` int64 and give the attention mask of the same shape."""
    width = max(len(row) for row in rows)
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, 1
    return ids, mask
