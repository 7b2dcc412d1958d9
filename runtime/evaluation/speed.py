"""Speed of several models on the same texts, measured in turns."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from moembed.embedder import Embedder
from moembed.evaluation.embedding_cache import prompt_of
from moembed.evaluation.tasks import Task

SAMPLE = 64  # texts of each side
ROUNDS = 5


@dataclass(frozen=True)
class Speed:
    """Speed of a model, medians of rounds in turn with the others; no text comes from a cache.

    Attributes:
        threads: threads of a call.
        query_ms: milliseconds of a query alone.
        texts_per_second: documents in one call.
        tokens_per_second: the same in the model's own tokens, prompts included.
    """

    threads: int
    query_ms: float
    texts_per_second: float
    tokens_per_second: float


def measure_speed(models: Sequence[Embedder], queries: Sequence[str], documents: Sequence[str]) -> list[Speed]:
    """Measure the models in turns on the same texts, each behind the model's own prompts; over-long texts are truncated.

    Args:
        models: the models.
        queries: at least one text, embedded alone.
        documents: at least one text, embedded in one call.
    """
    waits: list[list[float]] = [[] for _ in models]
    rates: list[list[float]] = [[] for _ in models]
    tokens = [
        sum(result.tokens for result in model.embed(documents, prompt=_document(model), overlong="truncate"))
        for model in models
    ]
    for model in models:  # a first call that does not count
        model.encode(queries[0], prompt=_query(model), overlong="truncate")
    for _ in range(ROUNDS):
        for query in queries:
            for model, found in zip(models, waits, strict=True):
                prompt = _query(model)
                start = time.perf_counter()
                model.encode(query, prompt=prompt, overlong="truncate")
                found.append(time.perf_counter() - start)
        for model, found in zip(models, rates, strict=True):
            prompt = _document(model)
            start = time.perf_counter()
            model.encode(documents, prompt=prompt, overlong="truncate", show_progress_bar=False)
            found.append(len(documents) / (time.perf_counter() - start))
    return [
        Speed(
            threads=model.threads,
            query_ms=1e3 * statistics.median(wait),
            texts_per_second=statistics.median(rate),
            tokens_per_second=statistics.median(rate) * count / len(documents),
        )
        for model, wait, rate, count in zip(models, waits, rates, tokens, strict=True)
    ]


def sample_texts(tasks: Sequence[Task]) -> tuple[list[str], list[str]]:
    """Return up to `SAMPLE` queries and as many documents, of all tasks in turn; a sentence of a pair is both."""
    sides = zip(*(task.sample(SAMPLE) for task in tasks), strict=True)
    queries, documents = (
        list(dict.fromkeys(text for turn in zip_longest(*side) for text in turn if text is not None))[:SAMPLE]
        for side in sides
    )
    return queries, documents


def _query(model: Embedder) -> str:
    return prompt_of(model, ("query",))


def _document(model: Embedder) -> str:
    return prompt_of(model, ("document",))
