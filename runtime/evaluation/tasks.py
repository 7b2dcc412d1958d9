"""Evaluation tasks: retrieval, similarity and bitext mining.

| task | prompts | figures |
|---|---|---|
| retrieval | the model's for queries and for documents | nDCG@10, Recall@100, MRR@10 |
| similarity (STS) | for both sides, the first that the model has of STS, PairClassification, query | Spearman |
| bitext | for both sides, the first that the model has of BitextMining, STS, query | accuracy@1 to and from English, and their
mean |

Texts longer than the model's limit are truncated, as in published results, and counted.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from moembed.errors import InputError
from moembed.evaluation.embedding_cache import BLOCK, CachedEmbedder
from moembed.evaluation.folders import (
    Judgements,
    check_corpus,
    documents,
    read_judgements,
    read_queries,
)
from moembed.evaluation.metrics import DEPTH, Found, Scores, correlation, ranked_figures
from moembed.evaluation.ranking import Ranking
from moembed.evaluation.variants import Variant, as_query, as_stored


@dataclass(frozen=True)
class Retrieval:
    """Retrieval: queries and their judgements from one folder, and documents from the same or another.

    Attributes:
        name: for reports.
        queries: file of queries.
        judgements: file of judgements; queries without any are skipped.
        corpus: files of documents.
        same_id_is_query: whether a document with a query's id is the query itself, and not a result.
        absent: judged documents that may be missing from the corpus; None for any.
    """

    kind: ClassVar[str] = "retrieval"
    prompts: ClassVar[dict[str, tuple[str, ...]]] = {"query": ("query",), "document": ("document",)}

    name: str
    queries: Path
    judgements: Path
    corpus: tuple[Path, ...]
    same_id_is_query: bool = False
    absent: frozenset[str] | None = frozenset()

    def check(self) -> dict[str, int]:
        """Read everything once, and return the numbers of texts, queries, documents, judgements and missing relevant documents.

        Raises:
            InputError: a file is malformed or empty, or a judgement names a missing query or document.
        """
        queries, judged = self._judged()
        relevant = {name for scores in judged.values() for name, score in scores.items() if score > 0}
        count, absent = check_corpus(self.corpus, relevant)
        if self.absent is not None and (lost := sorted(absent - self.absent)):
            raise InputError(
                f"{self.judgements}: {len(lost)} of {len(relevant)} relevant documents are not in {self.corpus[0].parent}, such "
                f"as {lost[0]!r}; --allow-absent accepts this, and counts them as never found"
            )
        counts = {"texts": len(queries) + count, "queries": len(queries), "documents": count}
        return counts | {"judgements": sum(map(len, judged.values())), "absent": len(absent)}

    def sample(self, count: int) -> tuple[list[str], list[str]]:
        """Return the first queries and the first documents, at most `count` of each."""
        queries, _ = self._judged()
        return list(queries.values())[:count], [document.text for document in islice(documents(self.corpus), count)]

    def measure(self, embedder: CachedEmbedder, variants: Sequence[Variant]) -> dict[Variant, Scores]:
        """Search the corpus, one block at a time; call `check` first."""
        queries, judged = self._judged()
        vectors = embedder.embed(list(queries.values()), self.prompts["query"])
        rankings = {variant: Ranking(as_query(vectors, variant), DEPTH) for variant in variants}
        rows = {query: row for row, query in enumerate(queries)} if self.same_id_is_query else {}
        names: dict[int, str] = {}
        first = bound = 0
        source = documents(self.corpus)
        while block := list(islice(source, BLOCK)):
            same = [(rows[document.id], column) for column, document in enumerate(block) if document.id in rows]
            vectors = embedder.embed([document.text for document in block], self.prompts["document"])
            for variant, ranking in rankings.items():
                ranking.add(
                    as_stored(vectors, variant, embedder.int8_scale),
                    first,
                    ([row for row, _ in same], [column for _, column in same]),
                )
            names |= {first + column: document.id for column, document in enumerate(block)}
            first += len(block)
            if len(names) > bound:  # drop ids that no ranking has any more, rarely enough to be cheap
                kept = set().union(*(ranking.positions().tolist() for ranking in rankings.values()))
                names = {position: name for position, name in names.items() if position in kept}
                bound = 2 * len(names) + 64 * BLOCK
        return {
            variant: ranked_figures(judged, _named(queries, ranking.best(), names))
            for variant, ranking in rankings.items()
        }

    def _judged(self) -> tuple[dict[str, str], Judgements]:
        texts, judged = read_queries(self.queries), read_judgements(self.judgements)
        if unknown := [query for query in judged if query not in texts]:
            raise InputError(
                f"{self.judgements}: {len(unknown)} of {len(judged)} queries are not in {self.queries}, such as "
                f"{unknown[0]!r}: the files do not belong together"
            )
        return {query: texts[query] for query in judged}, judged


@dataclass(frozen=True)
class Similarity:
    """Semantic textual similarity: pairs of sentences and their human similarity scores."""

    kind: ClassVar[str] = "similarity"
    prompts: ClassVar[dict[str, tuple[str, ...]]] = {"sentence": ("STS", "PairClassification", "query")}

    name: str
    left: tuple[str, ...]
    right: tuple[str, ...]
    scores: tuple[float, ...]

    def check(self) -> dict[str, int]:
        """Return the numbers of texts and pairs, which were checked when they were read."""
        return {"texts": 2 * len(self.scores), "pairs": len(self.scores)}

    def sample(self, count: int) -> tuple[list[str], list[str]]:
        """Return the first sentences of each side, at most `count`."""
        return list(self.left[:count]), list(self.right[:count])

    def measure(self, embedder: CachedEmbedder, variants: Sequence[Variant]) -> dict[Variant, Scores]:
        """Correlate the cosines with the scores."""
        left, right = (embedder.embed(side, self.prompts["sentence"]) for side in (self.left, self.right))
        figures = {}
        for variant in variants:
            sides = (as_stored(side, variant, embedder.int8_scale) for side in (left, right))
            products = np.prod([side.astype(np.float64) for side in sides], axis=0)
            # Rounded once, so that vectors with the same number of equal bits have equal similarities.
            figures[variant] = correlation(self.scores, products.sum(axis=1).astype(np.float32))
        return figures


@dataclass(frozen=True)
class Bitext:
    """Bitext mining: each sentence must find its translation among all sentences of the other side."""

    kind: ClassVar[str] = "bitext"
    prompts: ClassVar[dict[str, tuple[str, ...]]] = {"sentence": ("BitextMining", "STS", "query")}

    name: str
    foreign: tuple[str, ...]
    english: tuple[str, ...]

    def check(self) -> dict[str, int]:
        """Return the numbers of texts and pairs, which were checked when they were read."""
        return {"texts": 2 * len(self.foreign), "pairs": len(self.foreign)}

    def sample(self, count: int) -> tuple[list[str], list[str]]:
        """Return the first sentences of each side, at most `count`."""
        return list(self.foreign[:count]), list(self.english[:count])

    def measure(self, embedder: CachedEmbedder, variants: Sequence[Variant]) -> dict[Variant, Scores]:
        """Search in both directions; of a translation that occurs twice in the file, only that in the same line is correct."""
        foreign, english = (embedder.embed(side, self.prompts["sentence"]) for side in (self.foreign, self.english))
        figures = {}
        for variant in variants:
            left, right = (as_stored(side, variant, embedder.int8_scale) for side in (foreign, english))
            there, back = _found(left, right), _found(right, left)
            each = (there + back) / 2
            means = {"accuracy@1": each.mean(), "to English": there.mean(), "from English": back.mean()}
            figures[variant] = Scores({name: float(mean) for name, mean in means.items()}, each)
        return figures


Task = Retrieval | Similarity | Bitext


def check_all(tasks: Mapping[str, Task], log: Callable[[str], None]) -> dict[str, dict[str, int]]:
    """Check all tasks before anything is computed, log what each has, and return their counts by name.

    Raises:
        InputError: see `check`.
    """
    counts = {}
    for name, task in tasks.items():
        counts[name] = task.check()
        log(f"moembed: {name}: {', '.join(f'{count} {what}' for what, count in counts[name].items() if count)}")
    return counts


def _found(queries: NDArray[np.float32], documents: NDArray[np.float32]) -> NDArray[np.float64]:
    ranking = Ranking(queries, 1)
    for first in range(0, len(documents), BLOCK):
        ranking.add(documents[first : first + BLOCK], first)
    return np.array([best == [row] for row, (best, _) in enumerate(ranking.best())], np.float64)


def _named(
    queries: Iterable[str], best: Iterable[tuple[list[int], NDArray[np.float32]]], names: dict[int, str]
) -> dict[str, Found]:
    return {
        query: Found([names[position] for position in row], scores)
        for query, (row, scores) in zip(queries, best, strict=True)
    }
