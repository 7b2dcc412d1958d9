"""Quality in a bundle's certificate: one figure per set, at full width in float32, and that of the fp32 bundle."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from moembed.bundle.bundle import Bundle, read_manifest
from moembed.bundle.certificate import Quality
from moembed.bundle.manifest import MANIFEST_FILE, UNQUANTIZED
from moembed.embedder import Embedder
from moembed.errors import InputError, OutputError
from moembed.evaluation.datasets import find
from moembed.evaluation.results import MAIN_FIGURE, Result, measure
from moembed.evaluation.tasks import Task
from moembed.evaluation.variants import Variant
from moembed.files.paths import replacing_file
from moembed.hub.layout import is_snapshot
from moembed.verify.certificate_check import of_reference

_PRECISION = "float32"


def check_certifiable(
    source: str | None, model: Embedder, baseline: Embedder | None, variants: Sequence[Variant], tasks: Iterable[Task]
) -> None:
    """Make sure, before hours of evaluation, that the results can be certified.

    Args:
        source: the model as the user named it, which must be a folder.
        model: the model to certify.
        baseline: the fp32 model, or None.
        variants: variants to measure.
        tasks: tasks to measure.

    Raises:
        InputError: the model is not from a folder, the baseline is missing or is not the one that the certificate names, full
            width in float32 is not among the variants, or a set is named by a path that is valid on this machine only.
        OutputError: the bundle's folder cannot be written.
    """
    if source is None or not Path(source).is_dir():
        raise InputError(f"--certify writes into a bundle folder: name one with --model; found {source}")
    if baseline is None:
        raise InputError("--certify needs --baseline with the fp32 bundle that the certificate names as its reference")
    check_baseline(model.bundle, baseline.bundle)
    if _full(model) not in variants:
        raise InputError(
            f"--certify records the figures at {model.dim} dimensions in {_PRECISION}: include both in --dim and --precision"
        )
    if rooted := [task.name for task in tasks if Path(task.name).is_absolute() or ".." in Path(task.name).parts]:
        raise InputError(f"--certify records the names of sets: name {rooted[0]} relative to --data")
    if is_snapshot(model.bundle.folder) or (model.bundle.folder / MANIFEST_FILE).is_symlink():
        raise OutputError(
            f"{model.bundle.folder} is in the hub's cache, which other programs share, or consists of symbolic links: "
            f"certify a copy of it, made with `cp -rL`"
        )
    if not os.access(model.bundle.folder, os.W_OK):
        raise OutputError(f"cannot write {model.bundle.folder / MANIFEST_FILE}: certify a bundle in a writable folder")


def check_baseline(bundle: Bundle, baseline: Bundle) -> None:
    """Make sure that the baseline is the fp32 bundle that the certificate names, or one of the same checkpoint.

    Raises:
        InputError: it is another bundle.
    """
    finding = of_reference(bundle, baseline)
    if baseline.manifest.recipe != UNQUANTIZED or not finding.holds:
        raise InputError(
            f"{baseline.folder} ({baseline.manifest.recipe}, sha256 {str(finding.found)[:16]}…) is not the fp32 reference of "
            f"{bundle.folder}, whose certificate names {bundle.manifest.certificate.reference.kind} "
            f"{str(finding.stated)[:16]}…: name the fp32 bundle that it was made from"
        )


def certify(model: Embedder, result: Result) -> None:
    """Add a result to the certificate in the model's folder, whose manifest is replaced atomically; other sets stay.

    Raises:
        OutputError: the folder cannot be written, or was replaced by another bundle.
    """
    folder = model.bundle.folder
    manifest = read_manifest(folder)
    if manifest.files != model.bundle.manifest.files:
        raise OutputError(f"{folder} was replaced during the evaluation: its certificate was not changed")
    quality = manifest.certificate.quality | {result.name: quality_of(model, result)}
    with replacing_file(folder / MANIFEST_FILE) as partial:
        certified = replace(manifest, certificate=replace(manifest.certificate, quality=quality))
        partial.write_text(certified.to_json(), "utf-8")


def certify_sets(
    names: Sequence[str], root: Path, model: Embedder, baseline: Embedder, *, log: Callable[[str], None]
) -> None:
    """Measure sets, and write the figures into the certificate of the model's bundle.

    Args:
        names: of the sets, as in `find`.
        root: folder that the names are relative to.
        model: the model to certify.
        baseline: the fp32 bundle that its certificate names.
        log: called with the name of each set that is done.

    Raises:
        InputError: a set is missing or not usable, or the result cannot be certified.
        OutputError: the bundle's folder cannot be written.
    """
    tasks = {task.name: task for dataset in find(names, root) for task in dataset.tasks()}
    variants = [_full(model)]
    check_certifiable(str(model.bundle.folder), model, baseline, variants, tasks.values())
    counts = {name: task.check() for name, task in tasks.items()}
    for name, task in tasks.items():
        result = measure(task, counts[name], model, baseline, variants)
        certify(model, result)
        log(f"{name}: certified in {result.seconds:.0f} s")


def evaluated_again(
    names: Iterable[str], root: Path, model: Embedder, baseline: Embedder
) -> Iterator[tuple[str, Quality]]:
    """Measure certified sets again.

    Args:
        names: of the sets, as in the certificate.
        root: folder that the names are relative to.
        model: the certified model.
        baseline: the fp32 bundle that it is compared with.

    Yields:
        The name and quality of each set.

    Raises:
        InputError: a set is missing or not usable.
    """
    # Missing documents were allowed or refused when the set was certified; here only the figure matters.
    tasks = [task for dataset in find(list(names), root, allow_absent=True) for task in dataset.tasks()]
    for task in tasks:
        result = measure(task, task.check(), model, baseline, [_full(model)])
        yield task.name, quality_of(model, result)


def quality_of(model: Embedder, result: Result) -> Quality:
    """Return the main figure of a result and of its baseline, at full width in float32."""
    if result.baseline is None:
        raise ValueError(f"{result.name} was measured without a baseline")
    figure, full = MAIN_FIGURE[result.kind], _full(model)
    return Quality(figure, result.figures[full][figure], result.baseline[full][figure])


def _full(model: Embedder) -> Variant:
    return Variant(model.dim, _PRECISION)
