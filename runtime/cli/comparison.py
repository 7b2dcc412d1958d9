"""Several models in `moembed evaluate`: one table with a column for each."""

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from moembed.cli.common import emit, log, open_source
from moembed.errors import InputError

if TYPE_CHECKING:
    from moembed.embedder import Embedder
    from moembed.evaluation.datasets import Dataset
    from moembed.evaluation.tasks import Task


def compare(arguments: argparse.Namespace, found: "Sequence[Dataset]", tasks: "Mapping[str, Task]") -> int:
    """Evaluate several models, and print one table.

    Args:
        arguments: parsed arguments; `model` has at least two.
        found: the datasets.
        tasks: their tasks by name.

    Raises:
        InputError: an option is for one model, or two models have one name.
        OutputError: the JSON or the chart cannot be written.
    """
    from moembed.embedder import Embedder
    from moembed.evaluation import comparison, comparison_report, speed
    from moembed.evaluation.tasks import check_all
    from moembed.files.destination import writing

    _check_options(arguments)
    opened = [
        Embedder(open_source(name, arguments), providers=arguments.provider, threads=arguments.threads)
        for name in arguments.model
    ]
    named = list(zip(_labels(opened), opened, strict=True))
    models = comparison.compared(named, _width(arguments.dim), arguments.precision)
    counts = check_all(tasks, log)
    speeds = speed.measure_speed([model.embedder for model in models], *speed.sample_texts(list(tasks.values())))
    rows: dict[str, comparison.Row] = {}
    for name, task in tasks.items():
        rows[name] = comparison.compare_task(models, task, counts[name])
        values = (f"{model.label} {100 * value:.2f}" for model, value in zip(models, rows[name].values, strict=True))
        log(f"moembed: {name}: {', '.join(values)}")
        means = list(comparison.group_rows(found, rows)) if len(rows) == len(tasks) else []
        if arguments.json:
            complete = len(rows) == len(tasks)
            text = comparison_report.document(models, speeds, list(rows.values()), means, complete=complete)
            with writing(arguments.json) as file:
                file.write(text.encode())
    emit(comparison_report.markdown(models, speeds, list(rows.values()), means))
    if arguments.plot:
        comparison_report.draw(arguments.plot, models, list(rows.values()))
    return 0


def _check_options(arguments: argparse.Namespace) -> None:
    for name, given in (("--baseline", arguments.baseline), ("--certify", arguments.certify)):
        if given:
            raise InputError(
                f"{name} is for one model, found {len(arguments.model)} times --model: several models are compared with the first"
            )
    if arguments.revision is not None:
        raise InputError(
            "--revision is for one model: pull each revision into a folder (moembed pull), and compare these"
        )
    if "," in arguments.precision:
        raise InputError(f"--precision {arguments.precision}: several models are compared at one precision")


def _labels(models: "Sequence[Embedder]") -> list[str]:
    """Return the names of the models, with the recipe where several have one name."""
    manifests = [model.bundle.manifest for model in models]
    names = [manifest.name for manifest in manifests]
    return [
        manifest.name if names.count(manifest.name) == 1 else f"{manifest.name} {manifest.recipe}"
        for manifest in manifests
    ]


def _width(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise InputError(f"--dim {text}: expected one width, as several models are compared at one") from None
