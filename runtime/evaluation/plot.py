"""Plot of quality against width and precision."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure  # not pyplot, which needs a window system; savefig draws with Agg

from moembed.evaluation.results import MAIN_FIGURE, Result, Table
from moembed.evaluation.variants import Variant
from moembed.files.destination import writing


def draw(path: Path, title: str, results: Sequence[Result]) -> None:
    """Write a PNG with a panel per kind of task and a line per precision: the mean over the sets, dashed for the baseline.

    Raises:
        OutputError: the file cannot be written; an existing file is left unchanged.
    """
    kinds = [kind for kind in MAIN_FIGURE if any(result.kind == kind for result in results)]
    figure = Figure(figsize=(2 + 4.5 * len(kinds), 4), layout="constrained")
    figure.suptitle(title)
    for panel, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        own = [result for result in results if result.kind == kind]
        baselines = [result.baseline for result in own if result.baseline is not None]
        variants = list(own[0].figures)
        dims = sorted({variant.dim for variant in variants})
        for number, precision in enumerate(dict.fromkeys(variant.precision for variant in variants)):
            # Hollow markers of different sizes, because the lines of two precisions often coincide.
            style: dict[str, Any] = {
                "color": f"C{number}",
                "marker": "osD^v<>P"[number],
                "fillstyle": "none",
                "ms": 6 + 2 * number,
            }
            for tables, line, suffix in (
                ([result.figures for result in own], "-", ""),
                (baselines, "--", ", baseline"),
            ):
                if tables:
                    values = [100 * _mean(tables, Variant(dim, precision), MAIN_FIGURE[kind]) for dim in dims]
                    panel.plot(dims, values, line, label=precision + suffix, **style)
        panel.set(
            xscale="log",
            xlabel="dimensions",
            ylabel=f"{MAIN_FIGURE[kind]} x 100",
            title=own[0].name if len(own) == 1 else f"mean of {len(own)} sets",
        )
        panel.set_xticks(dims, [str(dim) for dim in dims], minor=False)
        panel.set_xticks([], minor=True)
        panel.grid(visible=True, alpha=0.3)
    figure.legend(*panel.get_legend_handles_labels(), loc="outside right upper")
    with writing(path) as file:
        figure.savefig(file, format="png", dpi=150)


def _mean(tables: Sequence[Table], variant: Variant, name: str) -> float:
    return sum(table[variant][name] for table in tables) / len(tables)
