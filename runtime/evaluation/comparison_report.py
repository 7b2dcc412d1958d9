"""A comparison of models as Markdown, as JSON and as a chart."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from moembed.evaluation.comparison import Compared, Row, totals
from moembed.evaluation.parameters import Parameters, parameters_of
from moembed.evaluation.report import model_record
from moembed.evaluation.results import MAIN_FIGURE
from moembed.evaluation.speed import Speed
from moembed.files.destination import writing
from moembed.models.spec import published_figures
from moembed.version import __version__


def markdown(models: Sequence[Compared], speeds: Sequence[Speed], rows: Sequence[Row], means: Sequence[Row]) -> str:
    """Return one table with a column for each model: what it is, its speed, and its figures times 100.

    Under each figure but the first model's stands the difference from the first, ± its standard error.
    """
    lines = [["", *(model.label for model in models)], ["---", *["---"] * len(models)]]
    lines += _facts(models, rows) + _speed(speeds)
    for kind, figure in MAIN_FIGURE.items():
        lines += [[f"{figure}, {_named(row)}", *_figures(row)] for row in [*rows, *means] if row.kind == kind]
    lines += _published(models, [*rows, *means])
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def document(
    models: Sequence[Compared], speeds: Sequence[Speed], rows: Sequence[Row], means: Sequence[Row], *, complete: bool
) -> str:
    """Return everything as JSON, with unrounded figures; lists have an item for each model."""
    record = {
        "moembed": __version__,
        "complete": complete,
        "models": [
            model_record(model.embedder)
            | {"label": model.label, "dim": model.variant.dim, "precision": model.variant.precision}
            | {"max_tokens": model.embedder.max_tokens, "size": model.embedder.bundle.size}
            | {"parameters": _counts(parameters_of(model.embedder.bundle))}
            for model in models
        ],
        "speed": [asdict(speed) for speed in speeds],
        "sets": [_record(row) for row in rows],
        "means": [_record(row) for row in means],
    }
    return json.dumps(record, ensure_ascii=False, indent=1) + "\n"


def draw(path: Path, models: Sequence[Compared], rows: Sequence[Row]) -> None:
    """Write a PNG with a panel per kind of task: a bar for each model and set.

    Raises:
        OutputError: the file cannot be written; an existing file is left unchanged.
    """
    from matplotlib.figure import Figure  # not pyplot, which needs a window system

    kinds = [kind for kind in MAIN_FIGURE if any(row.kind == kind for row in rows)]
    longest = max(sum(row.kind == kind for row in rows) for kind in kinds)
    figure = Figure(figsize=(5 * len(kinds) + 2, 1.5 + 0.22 * longest * (len(models) + 1)), layout="constrained")
    for panel, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        own = [row for row in rows if row.kind == kind]
        places, height = np.arange(len(own)), 0.8 / len(models)
        for number, model in enumerate(models):
            values = [100 * row.values[number] for row in own]
            panel.barh(places + number * height, values, height, label=model.label, color=f"C{number}")
        panel.set_yticks(places + 0.4 - height / 2, [row.name for row in own])
        panel.invert_yaxis()
        panel.set(xlabel=f"{MAIN_FIGURE[kind]} x 100", title=kind)
        panel.grid(visible=True, axis="x", alpha=0.3)
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=min(3, len(models)))
    with writing(path) as file:
        figure.savefig(file, format="png", dpi=150)


def _facts(models: Sequence[Compared], rows: Sequence[Row]) -> list[list[str]]:
    manifests = [model.embedder.bundle.manifest for model in models]
    cut, ties = totals(row.cut for row in rows), totals(row.ties for row in rows)
    return [
        ["parameters, million: total, active", *(_millions(parameters_of(model.embedder.bundle)) for model in models)],
        ["recipe", *(manifest.recipe for manifest in manifests)],
        ["size on disk, MB", *(f"{model.embedder.bundle.size / 1e6:.0f}" for model in models)],
        ["dimensions, trained widths", *(", ".join(map(str, manifest.widths)) for manifest in manifests)],
        ["compared at", *(f"{model.variant.dim}, {model.variant.precision}" for model in models)],
        ["limit, tokens", *(str(model.embedder.max_tokens) for model in models)],
        ["texts that were cut", *(f"{count:,}" for count in cut)],
        ["queries that ties decide", *(f"{count:,}" for count in ties)],
        ["prompts", *(_prompts([row.prompts[number] for row in rows]) for number in range(len(models)))],
    ]


def _millions(counts: Parameters | None) -> str:
    return "unknown" if counts is None else f"{counts.total / 1e6:.1f}, {counts.active / 1e6:.1f}"


def _counts(counts: Parameters | None) -> dict[str, int] | None:
    return None if counts is None else asdict(counts)


def _prompts(of_sets: Sequence[dict[str, str]]) -> str:
    found = dict.fromkeys((side, prompt) for prompts in of_sets for side, prompt in prompts.items())
    return "; ".join(f"{side} `{prompt}`" if prompt else f"{side} none" for side, prompt in found)


def _speed(speeds: Sequence[Speed]) -> list[list[str]]:
    return [
        ["threads", *(str(speed.threads) for speed in speeds)],
        ["a query alone, ms", *(f"{speed.query_ms:.1f}" for speed in speeds)],
        ["texts per second", *(f"{speed.texts_per_second:.1f}" for speed in speeds)],
        ["tokens per second, of its own tokenizer", *(f"{speed.tokens_per_second:,.0f}" for speed in speeds)],
    ]


def _named(row: Row) -> str:
    return row.name if row.sets == 1 else f"**{row.name}, mean of {row.sets}**"


def _figures(row: Row) -> list[str]:
    cells = [f"{100 * row.values[0]:.2f}"]
    for value, error in zip(row.values[1:], row.errors[1:], strict=True):
        spread = "" if error is None else f" ± {100 * error:.2f}"
        cells.append(f"{100 * value:.2f} ({100 * (value - row.values[0]):+.2f}{spread})")
    return cells


def _published(models: Sequence[Compared], rows: Sequence[Row]) -> list[list[str]]:
    """Return a line for each measured figure that others published of some of the models: see `_published_value`."""
    lines = []
    for row in rows:
        figure = MAIN_FIGURE[row.kind]
        values = [_published_value(model, row, figure, row.prompts[number]) for number, model in enumerate(models)]
        if any(value is not None for value in values):
            lines.append(
                [f"{figure}, {row.name}, published", *("" if value is None else f"{value:.2f}" for value in values)]
            )
    return lines


def _published_value(model: Compared, row: Row, figure: str, prompts: dict[str, str]) -> float | None:
    """Return what was published for the same version of the set, width and prompts; None if nothing was."""
    source = model.embedder.bundle.manifest.source
    key = (row.name, figure, model.variant.dim, prompts)
    known = published_figures(source.repo, source.weights_sha256) if row.as_published else ()
    return next((found.value for found in known if (found.set, found.figure, found.dim, found.prompts) == key), None)


def _record(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "task": row.kind,
        "sets": row.sets,
        "figure": MAIN_FIGURE[row.kind],
        "values": row.values,
        "differences": [value - row.values[0] for value in row.values],
        "standard_errors": row.errors,
        "cut": row.cut,
        "ties": row.ties,
        "prompts": row.prompts,
        "as_published": row.as_published,
    }
