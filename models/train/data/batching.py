"""Batches of texts of one length, so that nothing is padded."""

from collections import defaultdict
from collections.abc import Sequence


def length_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Group texts of equal length into batches, shortest first; within a length, the order is kept.

    Args:
        lengths: number of tokens of every text.
        max_tokens: limit of tokens in a batch; a longer text is a batch by itself.

    Returns:
        Indices of the texts of each batch.
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, length in enumerate(lengths):
        by_length[length].append(index)
    batches = []
    for length, indices in sorted(by_length.items()):
        size = max(1, max_tokens // length)
        batches += [indices[start : start + size] for start in range(0, len(indices), size)]
    return batches


def truncated_length(length: int, multiple: int) -> int:
    """Return a length rounded down to a multiple, so that more texts have the same one; shorter texts keep theirs."""
    return max(length // multiple * multiple, min(length, multiple))
