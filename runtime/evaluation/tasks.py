"""The three tasks: what is embedded, with which prompt, and what is measured.

| task | prompts | figures |
|---|---|---|
| retrieval | the model's for queries and for documents | nDCG@10, Recall@100, MRR@10 |
| similarity (STS) | the first the model has of STS, PairClassification, query; both sides | Spearman |
| bitext | the first the model has of BitextMining, STS, query; both sides | accuracy@1 to and from English, and their mean |

Texts beyond the model's limit are cut, as in published results, and counted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from moembed.errors import InputError
from moembed.evaluation.embedding_cache import BLOCK, Reading
from moembed.evaluation.folders import (
    Judgements,
    check_corpus,
    documents,
    read_judgements,
    read_queries,
)
from moembed.evaluation.metrics import DEPTH, Scores, correlation, ranked_figures
from moembed.evaluation.ranking import Ranking
from moembed.evaluation.variants import Variant, asking, stored


@dataclass(frozen=True)
class Retrieval:
    """Queries and their judgements, from one folder, and the documents to search, from the same or another.

    Attributes:
        name: what to call it.
        queries: file of queries.
        judgements: file of judgements; queries without any are not asked.
        corpus: files of documents.
        same_id_is_query: whether a document with a query's id is the query itself and no result.
        absent: judged documents that the corpus may lack; None for any.
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
        """Read everything once; gives the numbers of texts, queries, documents and relevant documents that are absent.

        Raises:
            InputError: a file is malformed or empty, or a judgement names a query or document that is not there.
        """
        queries, judged = self._judged()
        relevant = {name for scores in judged.values() for name, score in scores.items() if score > 0}
        count, absent = check_corpus(self.corpus, relevant)
        if self.absent is not None and (lost := sorted(absent - self.absent)):
            raise InputError(
                f"{self.judgements}: {len(lost)} of {len(relevant)} relevant documents are not in {self.corpus[0].parent}, such "
                f"as {lost[0]!r}; if the set is like that, --allow-absent counts them as never found"
            )
        texts = len(queries) + count
        return {"texts": texts, "queries": len(queries), "documents": count, "absent": len(absent)}

    def measure(self, reading: Reading, variants: Sequence[Variant]) -> dict[Variant, Scores]:
        """Search the corpus, a block of it in memory; call `check` first."""
        queries, judged = self._judged()
        asked = reading.vectors(list(queries.values()), self.prompts["query"])
        rankings = {variant: Ranking(asking(asked, variant), DEPTH) for variant in variants}
        rows = {query: row for row, query in enumerate(queries)} if self.same_id_is_query else {}
        names: dict[int, str] = {}
        first = bound = 0
        source = documents(self.corpus)
        while block := list(islice(source, BLOCK)):
            own = [(rows[document.id], column) for column, document in enumerate(block) if document.id in rows]
            vectors = reading.vectors([document.text for document in block], self.prompts["document"])
            for variant, ranking in rankings.items():
                ranking.add(stored(vectors, variant), first, ([row for row, _ in own], [column for _, column in own]))
            names |= {first + column: document.id for column, document in enumerate(block)}
            first += len(block)
            if len(names) > bound:  # forget who is in no list any more, at times that keep this cheap
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
    """Pairs of sentences and how similar people find them."""

    kind: ClassVar[str] = "similarity"
    prompts: ClassVar[dict[str, tuple[str, ...]]] = {"sentence": ("STS", "PairClassification", "query")}

    name: str
    left: tuple[str, ...]
    right: tuple[str, ...]
    scores: tuple[float, ...]

    def check(self) -> dict[str, int]:
        """The numbers of texts and pairs; they were checked when they were read."""
        return {"texts": 2 * len(self.scores), "pairs": len(self.scores)}

    def measure(self, reading: Reading, variants: Sequence[Variant]) -> dict[Variant, Scores]:
        """Correlate the cosines with the scores."""
        left, right = (reading.vectors(side, self.prompts["sentence"]) for side in (self.left, self.right))
        figures = {}
        for variant in variants:
            products = stored(left, variant).astype(np.float64) * stored(right, variant)
            # Rounded once, so that equally many equal bits are equal similarities.
            figures[variant] = correlation(self.scores, products.sum(axis=1).astype(np.float32))
        return figures


@dataclass(frozen=True)
class Bitext:
    """Sentences and their translations: each has to find its own among all of the other side."""

    kind: ClassVar[str] = "bitext"
    prompts: ClassVar[dict[str, tuple[str, ...]]] = {"sentence": ("BitextMining", "STS", "query")}

    name: str
    foreign: tuple[str, ...]
    english: tuple[str, ...]

    def check(self) -> dict[str, int]:
        """The numbers of texts and pairs; they were checked when they were read."""
        return {"texts": 2 * len(self.foreign), "pairs": len(self.foreign)}

    def measure(self, reading: Reading, variants: Sequence[Variant]) -> dict[Variant, Scores]:
        """Search both ways; a translation that stands in the file twice is found only in its own line."""
        foreign, english = (reading.vectors(side, self.prompts["sentence"]) for side in (self.foreign, self.english))
        figures = {}
        for variant in variants:
            left, right = stored(foreign, variant), stored(english, variant)
            there, back = _found(left, right), _found(right, left)
            each = (there + back) / 2
            means = {"accuracy@1": each.mean(), "to English": there.mean(), "from English": back.mean()}
            figures[variant] = Scores({name: float(mean) for name, mean in means.items()}, each)
        return figures


Task = Retrieval | Similarity | Bitext


def _found(queries: NDArray[np.float32], documents: NDArray[np.float32]) -> NDArray[np.float64]:
    ranking = Ranking(queries, 1)
    for first in range(0, len(documents), BLOCK):
        ranking.add(documents[first : first + BLOCK], first)
    return np.array([best == [row] for row, best in enumerate(ranking.best())], np.float64)


def _named(queries: Iterable[str], best: Iterable[list[int]], names: dict[int, str]) -> dict[str, list[str]]:
    return {query: [names[position] for position in row] for query, row in zip(queries, best, strict=True)}
