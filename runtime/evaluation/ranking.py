"""Exact search, block by block, that keeps only the best documents of every query."""

import numpy as np
from numpy.typing import NDArray

_QUERY_BLOCK = 1024  # queries at a time, to limit the memory of the scores


class Ranking:
    """Best `depth` documents of every query among the blocks so far.

    The order is by score, then by position in the corpus, and does not depend on the division into blocks: scores are computed
    in float64 and rounded to float32, which hides the order of summation, so equal vectors have equal scores.
    """

    def __init__(self, queries: NDArray[np.float32], depth: int) -> None:
        """Start a search.

        Args:
            queries: `[queries, dim]` float32.
            depth: documents to keep per query.
        """
        self._queries = queries.astype(np.float64)
        self._depth = depth
        # Positions ascend in every row; empty places have a score of minus infinity.
        self._scores = np.full((len(queries), depth), -np.inf, np.float32)
        self._positions = np.full((len(queries), depth), -1, np.int64)

    def add(
        self,
        block: NDArray[np.float32],
        first: int,
        excluded: tuple[list[int], list[int]] = ([], []),
    ) -> None:
        """Search a block of documents.

        Args:
            block: `[documents, dim]` float32.
            first: position of the block's first document in the corpus; blocks come in order.
            excluded: indices of queries and of documents in the block, pairwise, that are not results.
        """
        documents = block.astype(np.float64).T
        positions = np.arange(first, first + len(block), dtype=np.int64)[None, :]
        mask = np.zeros((len(self._queries), len(block)), bool)
        mask[excluded] = True
        for start in range(0, len(self._queries), _QUERY_BLOCK):
            rows = slice(start, start + _QUERY_BLOCK)
            found = (self._queries[rows] @ documents).astype(np.float32)
            found[mask[rows]] = -np.inf
            scores = np.concatenate([self._scores[rows], found], axis=1)
            columns = self._columns_of_best(scores)
            self._scores[rows] = np.take_along_axis(scores, columns, axis=1)
            old, new = columns < self._depth, np.maximum(columns - self._depth, 0)
            kept = np.take_along_axis(self._positions[rows], np.where(old, columns, 0), axis=1)
            self._positions[rows] = np.where(old, kept, np.take_along_axis(positions, new, axis=1))

    def positions(self) -> NDArray[np.int64]:
        """Return the distinct positions of all kept documents, ascending."""
        return np.unique(self._positions[self._scores > -np.inf])

    def best(self) -> list[tuple[list[int], NDArray[np.float32]]]:
        """Return the positions of each query's documents, best first, and their scores [documents] float32."""
        order = np.argsort(-self._scores, axis=1, kind="stable")
        positions = np.take_along_axis(self._positions, order, axis=1)
        scores = np.take_along_axis(self._scores, order, axis=1)
        present = scores > -np.inf
        return [(row[kept].tolist(), score[kept]) for row, score, kept in zip(positions, scores, present, strict=True)]

    def _columns_of_best(self, scores: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the columns `[rows, depth]`, ascending, of every row's best scores; of equal scores, the first."""
        last = -np.partition(-scores, self._depth - 1, axis=1)[:, self._depth - 1 : self._depth]
        above, equal = scores > last, scores == last
        room = self._depth - above.sum(axis=1, keepdims=True)
        selected = above | (equal & (np.cumsum(equal, axis=1) <= room))
        return np.nonzero(selected)[1].reshape(len(scores), self._depth)
