"""Evaluation results: one per task, and the means of groups."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from moembed.embedder import Embedder
from moembed.evaluation.datasets import Dataset, group_means
from moembed.evaluation.embedding_cache import CachedEmbedder, prompt_of, shared_cache
from moembed.evaluation.metrics import Figures, Scores, standard_error
from moembed.evaluation.tasks import Task
from moembed.evaluation.variants import Variant
from moembed.progress import progress

# Figure of each kind of task in differences, plots and certificates.
MAIN_FIGURE = {"retrieval": "nDCG@10", "similarity": "Spearman", "bitext": "accuracy@1"}
Table = Mapping[Variant, Figures]


@dataclass(frozen=True)
class Result:
    """Figures of one task, or their means over a group.

    Attributes:
        name: of the dataset or group.
        kind: kind of the task.
        counts: numbers of texts, queries, documents, pairs; for a mean, of sets.
        prompts: side -> prompt.
        truncated: number of texts longer than the model's limit.
        seconds: time of both models; cached texts take none.
        figures: variant -> figure -> value in 0 to 1 (Spearman: -1 to 1).
        baseline: the same for the baseline, if there is one.
        errors: variant -> standard error of the difference between both main figures, if these are means over queries.
        ties: variant -> number of queries whose main figure depends on the order of documents with equal scores.
    """

    name: str
    kind: str
    counts: dict[str, int]
    prompts: dict[str, str]
    truncated: int
    seconds: float
    figures: Table
    baseline: Table | None
    errors: Mapping[Variant, float] = field(default_factory=dict)
    ties: Mapping[Variant, int] = field(default_factory=dict)


def measure(
    task: Task,
    counts: dict[str, int],
    embedder: Embedder,
    baseline: Embedder | None,
    variants: Sequence[Variant],
    *,
    show: bool | None = None,
) -> Result:
    """Run one task; a text is embedded once per model, for all variants and, within the cache's limit, all tasks.

    Args:
        task: the task.
        counts: result of its `check`.
        embedder: the model.
        baseline: a model to compare with, or None.
        variants: widths and precisions.
        show: whether to show a progress bar; None shows it on a terminal.
    """
    start, models = time.perf_counter(), [embedder, *([baseline] if baseline else [])]
    with progress(counts["texts"] * len(models), "text", show=show) as advance:
        embedders = [CachedEmbedder(model, advance, cache=shared_cache(model)) for model in models]
        scores = [task.measure(one, variants) for one in embedders]
    prompts = {side: prompt_of(embedder, names) for side, names in task.prompts.items()}
    seconds = time.perf_counter() - start
    tables = [{variant: own.figures for variant, own in model.items()} for model in scores]
    return Result(
        name=task.name,
        kind=task.kind,
        counts=counts,
        prompts=prompts,
        truncated=embedders[0].truncated,
        seconds=seconds,
        figures=tables[0],
        baseline=tables[1] if baseline else None,
        errors=_errors(*scores) if baseline else {},
        ties={variant: own.ties for variant, own in scores[0].items()},
    )


def _errors(own: Mapping[Variant, Scores], baseline: Mapping[Variant, Scores]) -> dict[Variant, float]:
    return {
        variant: standard_error(scores.each, other.each)
        for variant, scores in own.items()
        if (other := baseline[variant]).each is not None and scores.each is not None
    }


def means(datasets: Sequence[Dataset], results: Mapping[str, Result]) -> Iterator[Result]:
    """Yield the mean of every group whose members are of one kind; a nested group counts once."""
    return group_means(datasets, results, _mean)


def _mean(name: str, parts: Sequence[Result]) -> Result:
    baselines = [part.baseline for part in parts if part.baseline is not None]
    return Result(
        name=name,
        kind=parts[0].kind,
        counts={"sets": len(parts)},
        prompts=parts[0].prompts,
        truncated=sum(part.truncated for part in parts),
        seconds=sum(part.seconds for part in parts),
        figures=_averaged([part.figures for part in parts]),
        baseline=_averaged(baselines) if baselines else None,
    )


def _averaged(tables: Sequence[Table]) -> Table:
    return {
        variant: {name: sum(table[variant][name] for table in tables) / len(tables) for name in figures}
        for variant, figures in tables[0].items()
    }
