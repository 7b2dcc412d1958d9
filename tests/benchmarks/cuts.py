"""What a cut of the built-in model loses: its prefix, beside the principal directions of the evaluated texts themselves.

    python tests/benchmarks/cuts.py --data EVALUATION_SETS xquad-en xquad-de:xquad-en ...

A rotation into the principal directions of the very texts that are searched is no model's: nobody knows them beforehand, and the
fewer the sets that are named, the better they fit. It tells how much of a cut's loss is the choice of directions. Prints a
Markdown table: the first figure of each set with all dimensions, and its change in per cent, by width.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moembed.embedder import Embedder
from moembed.evaluation.datasets import find
from moembed.evaluation.embedding_cache import Reading
from moembed.evaluation.tasks import Task
from moembed.evaluation.variants import variants
from moembed.progress import Advance, progress

Floats = NDArray[np.float32]


class Turned(Reading):
    """Vectors in other directions: `turn` is `[width, width]` and orthogonal. `seen` are those of before."""

    def __init__(self, embedder: Embedder, advance: Advance) -> None:
        super().__init__(embedder, advance)
        self.turn: Floats | None = None
        self.seen: list[Floats] = []

    def vectors(self, texts: Sequence[str], prompts: Sequence[str]) -> Floats:
        """As `Reading.vectors`."""
        found = super().vectors(texts, prompts)
        if self.turn is not None:
            return found @ self.turn.T
        self.seen.append(found)
        return found


def losses(task: Task, reading: Reading, dims: Sequence[int], width: int) -> tuple[float, list[float]]:
    """The first figure of a task with all dimensions, and its relative change by every cut."""
    kept = variants([width, *dims], ["float32"], width)
    whole, *cut = (next(iter(scores.figures.values())) for scores in task.measure(reading, kept).values())
    return whole, [value / whole - 1 for value in cut]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", help="as `moembed evaluate` takes them")
    parser.add_argument("--data", type=Path, help="folder that names are relative to")
    parser.add_argument("--model", help="a bundle; the built-in one if left out")
    parser.add_argument("--dims", type=int, nargs="+", default=[256, 128])
    options = parser.parse_args()
    tasks = [task for dataset in find(options.sets, options.data) for task in dataset.tasks()]
    model = Embedder.from_pretrained(options.model)
    texts = 2 * sum(task.check()["texts"] for task in tasks)
    with progress(texts, "text", show=None) as advance:
        reading = Turned(model, advance)
        prefix = [losses(task, reading, options.dims, model.dim) for task in tasks]
        seen = np.concatenate(reading.seen).astype(np.float64)
        reading.turn = np.linalg.eigh(seen.T @ seen)[1][:, ::-1].T.astype(np.float32)
        own = [losses(task, reading, options.dims, model.dim) for task in tasks]
    heads = [f"{what} {dim}" for what in ("prefix", "own directions") for dim in options.dims]
    print("| " + " | ".join(["set", f"all {model.dim}", *heads]) + " |")
    print("|" + "---|" * (2 + len(heads)))
    rows = [(task.name, whole, [*cut, *best]) for task, (whole, cut), (_, best) in zip(tasks, prefix, own, strict=True)]
    rows.append(("mean", *(np.mean([row[i] for row in rows], axis=0) for i in (1, 2))))
    for name, whole, changes in rows:
        print("| " + " | ".join([name, f"{whole:.4f}", *(f"{100 * change:+.1f}" for change in changes)]) + " |")


if __name__ == "__main__":
    main()
