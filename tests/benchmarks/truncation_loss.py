"""Loss by truncation to fewer dimensions: of the model's leading dimensions, and of the principal directions of the same texts.

    python tests/benchmarks/truncation_loss.py --data EVALUATION_SETS xquad-en xquad-de:xquad-en ...

No model can know the principal directions of the texts that are searched, and they fit better the fewer sets are named. They show
how much of the loss comes from the choice of directions. Prints a Markdown table: the main figure of each set at full width, and
its change in % at each width.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moembed.embedder import Embedder
from moembed.evaluation.datasets import find
from moembed.evaluation.embedding_cache import CachedEmbedder
from moembed.evaluation.tasks import Task
from moembed.evaluation.variants import variants
from moembed.progress import Advance, progress

Floats = NDArray[np.float32]


class RotatedEmbedder(CachedEmbedder):
    """Embedder whose vectors are multiplied by an orthogonal matrix.

    Attributes:
        rotation: `[width, width]`, or None to keep the vectors.
        collected: vectors that were returned without a rotation.
    """

    def __init__(self, embedder: Embedder, advance: Advance) -> None:
        super().__init__(embedder, advance)
        self.rotation: Floats | None = None
        self.collected: list[Floats] = []

    def embed(self, texts: Sequence[str], prompt_names: Sequence[str]) -> Floats:
        """Return what `CachedEmbedder.embed` returns, rotated."""
        vectors = super().embed(texts, prompt_names)
        if self.rotation is not None:
            return vectors @ self.rotation.T
        self.collected.append(vectors)
        return vectors


def losses(task: Task, embedder: CachedEmbedder, dims: Sequence[int], width: int) -> tuple[float, list[float]]:
    """Return the main figure of a task at full width, and its relative change at each of the widths."""
    measured = task.measure(embedder, variants([width, *dims], ["float32"], width))
    full, *truncated = (next(iter(scores.figures.values())) for scores in measured.values())
    return full, [value / full - 1 for value in truncated]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", help="named as for `moembed evaluate`")
    parser.add_argument("--data", type=Path, help="folder that names are relative to")
    parser.add_argument("--model", help="a bundle (default: the built-in model)")
    parser.add_argument("--dims", type=int, nargs="+", default=[256, 128])
    options = parser.parse_args()
    tasks = [task for dataset in find(options.sets, options.data) for task in dataset.tasks()]
    model = Embedder.from_pretrained(options.model)
    texts = 2 * sum(task.check()["texts"] for task in tasks)
    with progress(texts, "text", show=None) as advance:
        embedder = RotatedEmbedder(model, advance)
        leading = [losses(task, embedder, options.dims, model.dim) for task in tasks]
        vectors = np.concatenate(embedder.collected).astype(np.float64)
        embedder.rotation = np.linalg.eigh(vectors.T @ vectors)[1][:, ::-1].T.astype(np.float32)
        principal = [losses(task, embedder, options.dims, model.dim) for task in tasks]
    columns = [f"{directions} {dim}" for directions in ("leading", "principal") for dim in options.dims]
    print("| " + " | ".join(["set", f"all {model.dim}", *columns]) + " |")
    print("|" + "---|" * (2 + len(columns)))
    rows = [
        (task.name, full, [*by_leading, *by_principal])
        for task, (full, by_leading), (_, by_principal) in zip(tasks, leading, principal, strict=True)
    ]
    rows.append(("mean", *(np.mean([row[i] for row in rows], axis=0) for i in (1, 2))))
    for name, full, changes in rows:
        print("| " + " | ".join([name, f"{full:.4f}", *(f"{100 * change:+.1f}" for change in changes)]) + " |")


if __name__ == "__main__":
    main()
