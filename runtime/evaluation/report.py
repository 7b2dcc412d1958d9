"""Evaluation results as Markdown and as JSON."""

import json
from collections.abc import Sequence
from typing import Any

from moembed.embedder import Embedder
from moembed.evaluation.metrics import Figures
from moembed.evaluation.results import MAIN_FIGURE, Result
from moembed.evaluation.variants import Variant
from moembed.version import __version__


def markdown(results: Sequence[Result], means: Sequence[Result]) -> str:
    """Return one table per kind of task, with values times 100; means come last.

    ± is the standard error of a difference, as the queries are a sample.
    """
    parts = []
    for kind in MAIN_FIGURE:
        rows = [row for result in results if result.kind == kind for row in _rows(result, result.name)]
        for mean in means:
            if mean.kind == kind:
                rows += _rows(mean, f"**{mean.name}, mean of {mean.counts['sets']}**")
        if rows:
            first = next(result for result in results if result.kind == kind)
            head = [kind, "dim", "precision", *next(iter(first.figures.values()))]
            if first.baseline is not None:
                head.append(f"{MAIN_FIGURE[kind]} against baseline")
            lines = [head, ["---", *["---:" if name != "precision" else "---" for name in head[1:]]], *rows]
            parts.append("\n".join("| " + " | ".join(line) + " |" for line in lines))
    return "\n\n".join(parts)


def document(
    model: Embedder, baseline: Embedder | None, results: Sequence[Result], means: Sequence[Result], *, complete: bool
) -> str:
    """Return everything as JSON: models by name and fingerprint, counts, prompts, and unrounded figures of every variant."""
    record = {
        "moembed": __version__,
        "complete": complete,
        "model": model_record(model),
        "baseline": model_record(baseline) if baseline else None,
        "sets": [_record(result) for result in results],
        "means": [_record(result) for result in means],
    }
    return json.dumps(record, ensure_ascii=False, indent=1) + "\n"


def difference(kind: str, value: float, baseline: float) -> tuple[float, str]:
    """Return the difference of a main figure from the baseline's, and its unit: % of it for nDCG@10, otherwise points (0.01)."""
    if kind == "retrieval":
        return (100 * (value / baseline - 1) if baseline else 0.0), "%"
    return 100 * (value - baseline), "points"


def _difference(result: Result, variant: Variant, baseline: Figures) -> dict[str, Any]:
    figure, error = MAIN_FIGURE[result.kind], result.errors.get(variant)
    base = baseline[figure]
    change, unit = difference(result.kind, result.figures[variant][figure], base)
    found: dict[str, Any] = {"figure": figure, "value": change, "unit": unit}
    if error is not None:
        found["standard_error"] = abs(difference(result.kind, base + error, base)[0])
    return found


def _rows(result: Result, name: str) -> list[list[str]]:
    rows = []
    for variant, figures in result.figures.items():
        row = [name.replace("|", "\\|"), str(variant.dim), variant.precision]
        row += [f"{100 * value:.2f}" for value in figures.values()]
        if result.baseline is not None:
            found = _difference(result, variant, result.baseline[variant])
            spread = f" ± {found['standard_error']:.2f}" if "standard_error" in found else ""
            row.append(f"{found['value']:+.2f}{spread} {found['unit']}")
        rows.append(row)
    return rows


def _record(result: Result) -> dict[str, Any]:
    rows = []
    for variant, figures in result.figures.items():
        row: dict[str, Any] = {"dim": variant.dim, "precision": variant.precision, **figures}
        if result.kind == "retrieval" and variant in result.ties:
            row["ties"] = result.ties[variant]
        if result.baseline is not None:
            baseline = result.baseline[variant]
            row |= {"baseline": baseline, "difference": _difference(result, variant, baseline)}
        rows.append(row)
    return {
        "name": result.name,
        "task": result.kind,
        **result.counts,
        "prompts": result.prompts,
        "cut": result.truncated,
        "seconds": round(result.seconds, 1),
        "results": rows,
    }


def model_record(model: Embedder) -> dict[str, Any]:
    """Return what identifies a model, as JSON."""
    manifest = model.bundle.manifest
    return {
        "name": manifest.name,
        "recipe": manifest.recipe,
        "fingerprint": model.bundle.fingerprint,
        "source": {"repo": manifest.source.repo, "weights_sha256": manifest.source.weights_sha256},
    }
