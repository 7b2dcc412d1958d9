"""Exact search, block by block, with the best documents of every query so far as the only memory."""

import numpy as np
from numpy.typing import NDArray

_ROWS = 1024  # queries at a time, so that the scores of a block stay small


class Ranking:
    """The best `depth` documents of every query among the blocks seen.

    The order is by score, then by position in the corpus, so that neither the blocks nor their number changes it: scores are
    computed in float64 and rounded to float32, which hides the order of summation, and equal vectors score equally.
    """

    def __init__(self, queries: NDArray[np.float32], depth: int) -> None:
        """Start a search.

        Args:
            queries: `[queries, dim]` float32.
            depth: most documents to keep of each.
        """
        self._queries = queries.astype(np.float64)
        self._depth = depth
        # Ascending positions in every row; the empty places score minus infinity.
        self._scores = np.full((len(queries), depth), -np.inf, np.float32)
        self._positions = np.full((len(queries), depth), -1, np.int64)

    def add(
        self,
        block: NDArray[np.float32],
        first: int,
        barred: tuple[list[int], list[int]] = ([], []),
    ) -> None:
        """Search a block of documents.

        Args:
            block: `[documents, dim]` float32.
            first: position of the block's first document in the corpus; blocks come in order.
            barred: queries and documents of the block (indices, pairwise) that must not meet.
        """
        documents = block.astype(np.float64).T
        positions = np.arange(first, first + len(block), dtype=np.int64)[None, :]
        bars = np.zeros((len(self._queries), len(block)), bool)
        bars[barred] = True
        for start in range(0, len(self._queries), _ROWS):
            rows = slice(start, start + _ROWS)
            found = (self._queries[rows] @ documents).astype(np.float32)
            found[bars[rows]] = -np.inf
            scores = np.concatenate([self._scores[rows], found], axis=1)
            columns = self._columns_of_best(scores)
            self._scores[rows] = np.take_along_axis(scores, columns, axis=1)
            old, new = columns < self._depth, np.maximum(columns - self._depth, 0)
            kept = np.take_along_axis(self._positions[rows], np.where(old, columns, 0), axis=1)
            self._positions[rows] = np.where(old, kept, np.take_along_axis(positions, new, axis=1))

    def positions(self) -> NDArray[np.int64]:
        """Positions of all documents that are kept, ascending, each once."""
        return np.unique(self._positions[self._scores > -np.inf])

    def best(self) -> list[list[int]]:
        """Positions of each query's documents, best first."""
        order = np.argsort(-self._scores, axis=1, kind="stable")
        positions, scores = (np.take_along_axis(x, order, axis=1) for x in (self._positions, self._scores))
        return [row[score > -np.inf].tolist() for row, score in zip(positions, scores, strict=True)]

    def _columns_of_best(self, scores: NDArray[np.float32]) -> NDArray[np.int64]:
        """`[rows, depth]`, ascending: the columns of every row's best scores, of equal ones the first."""
        last = -np.partition(-scores, self._depth - 1, axis=1)[:, self._depth - 1 : self._depth]
        above, equal = scores > last, scores == last
        room = self._depth - above.sum(axis=1, keepdims=True)
        chosen = above | (equal & (np.cumsum(equal, axis=1) <= room))
        return np.nonzero(chosen)[1].reshape(len(scores), self._depth)
