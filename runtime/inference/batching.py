"""Batches under a token budget, sorted by length to reduce padding."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from moembed.tokenizer.tokenizer import Ids

# Measured: beyond about a thousand tokens per call, throughput stays the same, while memory and latency grow.
TOKENS_PER_CALL = 1024


def plan(lengths: Sequence[int], *, batch_size: int, tokens_per_call: int = TOKENS_PER_CALL) -> Iterator[list[int]]:
    """Group texts into batches.

    Args:
        lengths: number of tokens of each text.
        batch_size: maximum number of texts in a batch.
        tokens_per_call: maximum number of tokens in a batch, padding included; a longer text becomes a batch alone.

    Yields:
        Indices into `lengths`, longest texts first, so that a lack of memory shows at the first batch.
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
    """Right-pad rows of ids to `[batch, longest]` int64; return them with the attention mask of the same shape."""
    width = max(len(row) for row in rows)
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, 1
    return ids, mask
