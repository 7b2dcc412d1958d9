"""Comparison of models on the same sets: each at one width and precision, with differences from the first."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from moembed.embedder import Embedder
from moembed.errors import InputError
from moembed.evaluation.datasets import Dataset, group_means, published
from moembed.evaluation.embedding_cache import CachedEmbedder, prompt_of, shared_cache
from moembed.evaluation.metrics import Scores, standard_error
from moembed.evaluation.results import MAIN_FIGURE
from moembed.evaluation.tasks import Task
from moembed.evaluation.variants import Variant, variants
from moembed.progress import progress

# Counts that tell versions of a set apart, by kind of task.
_VERSION = {
    "retrieval": ("documents", "queries", "judgements"),
    "similarity": ("pairs",),
    "bitext": ("pairs",),
}


@dataclass(frozen=True)
class Compared:
    """A model that takes part.

    Attributes:
        label: what it is called in tables.
        embedder: the model.
        variant: width and precision that it is measured at.
    """

    label: str
    embedder: Embedder
    variant: Variant


@dataclass(frozen=True)
class Row:
    """Main figures of a task, or of a group, one for each model in their order.

    Attributes:
        name: of the dataset or group.
        kind: kind of the task.
        sets: number of sets that the figures are means of.
        values: main figures.
        errors: standard errors of the difference from the first model, None where the figure has none.
        cut: numbers of texts longer than each model's limit.
        ties: numbers of queries whose figure depends on the order of documents with equal scores.
        prompts: prompts of each model, by side.
        as_published: whether the data are the version that published figures are of.
    """

    name: str
    kind: str
    sets: int
    values: list[float]
    errors: list[float | None]
    cut: list[int]
    ties: list[int]
    prompts: list[dict[str, str]]
    as_published: bool


def compared(models: Sequence[tuple[str, Embedder]], dim: int | None, precision: str) -> list[Compared]:
    """Return the models with the width that each is measured at: `dim`, or its own full width.

    Raises:
        InputError: a model has no vectors of that width or precision, or two have one label.
    """
    labels = [label for label, _ in models]
    if repeated := next((label for label in labels if labels.count(label) > 1), None):
        raise InputError(f"the model {repeated} is given twice: a comparison takes each model once")
    narrowest = min(models, key=lambda model: model[1].dim)
    if dim is not None and dim > narrowest[1].dim:
        raise InputError(
            f"dim = {dim}, but {narrowest[0]} has vectors of {narrowest[1].dim} dimensions: choose a smaller width"
        )
    return [
        Compared(label, embedder, *variants([embedder.dim if dim is None else dim], [precision], embedder.dim))
        for label, embedder in models
    ]


def compare_task(models: Sequence[Compared], task: Task, counts: Mapping[str, int], *, show: bool | None = None) -> Row:
    """Measure all models on a task, after its `check`.

    Args:
        models: at least one.
        task: the task.
        counts: result of its `check`.
        show: whether to show a progress bar; None shows it on a terminal.
    """
    scores: list[Scores] = []
    cut = []
    with progress(counts["texts"] * len(models), "text", show=show) as advance:
        for model in models:
            cached = CachedEmbedder(model.embedder, advance, cache=shared_cache(model.embedder))
            scores.append(task.measure(cached, [model.variant])[model.variant])
            cut.append(cached.truncated)
    figure, first = MAIN_FIGURE[task.kind], scores[0].each
    return Row(
        name=task.name,
        kind=task.kind,
        sets=1,
        values=[found.figures[figure] for found in scores],
        errors=[None if first is None or found.each is None else standard_error(found.each, first) for found in scores],
        cut=cut,
        ties=[found.ties for found in scores],
        prompts=[{side: prompt_of(model.embedder, names) for side, names in task.prompts.items()} for model in models],
        as_published=published().versions.get(task.name) == tuple(counts[part] for part in _VERSION[task.kind]),
    )


def group_rows(datasets: Sequence[Dataset], rows: Mapping[str, Row]) -> Iterator[Row]:
    """Yield the means of every group whose members are of one kind; a nested group counts once."""
    return group_means(datasets, rows, _mean)


def totals(counts: Iterable[Sequence[int]]) -> list[int]:
    """Return the sums of counts of each model over some rows."""
    return [sum(column) for column in zip(*counts, strict=True)]


def _mean(name: str, parts: Sequence[Row]) -> Row:
    return Row(
        name=name,
        kind=parts[0].kind,
        sets=len(parts),
        values=[statistics.fmean(column) for column in zip(*(part.values for part in parts), strict=True)],
        errors=[_error_of_mean(column) for column in zip(*(part.errors for part in parts), strict=True)],
        cut=totals(part.cut for part in parts),
        ties=totals(part.ties for part in parts),
        prompts=parts[0].prompts,
        as_published=all(part.as_published for part in parts),
    )


def _error_of_mean(errors: Sequence[float | None]) -> float | None:
    """Return the standard error of the mean of independent sets; None if one of them has none."""
    known = [error for error in errors if error is not None]
    return None if len(known) < len(errors) else sum(error**2 for error in known) ** 0.5 / len(known)
