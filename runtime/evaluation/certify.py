"""Quality in a bundle's certificate: one figure a set, at full width in float32, beside the fp32 bundle's."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from moembed.bundle.bundle import Bundle, read_manifest
from moembed.bundle.certificate import Quality
from moembed.bundle.hub import is_snapshot
from moembed.bundle.manifest import MANIFEST_FILE
from moembed.embedder import Embedder
from moembed.errors import InputError, OutputError
from moembed.evaluation.datasets import find
from moembed.evaluation.results import MAIN, Result, measure
from moembed.evaluation.tasks import Task
from moembed.evaluation.variants import Variant
from moembed.files.paths import replacing_file
from moembed.verify.certificate_check import of_reference

_PRECISION = "float32"


def check_certifiable(
    source: str | None, model: Embedder, baseline: Embedder | None, variants: Sequence[Variant], tasks: Iterable[Task]
) -> None:
    """Make sure, before hours of evaluation, that their result can be certified.

    Args:
        source: what the user named the model by: it must be a folder.
        model: the model to certify.
        baseline: what it is compared with, or None.
        variants: what will be measured.
        tasks: on what.

    Raises:
        InputError: the model is not from a folder, there is no baseline or another one than the certificate names, full
            width in float32 is not among the variants, or a set is named by a path that means nothing elsewhere.
        OutputError: the bundle's folder cannot be written.
    """
    if source is None or not Path(source).is_dir():
        raise InputError(f"--certify writes into a bundle folder, which --model is to name; found {source}")
    if baseline is None:
        raise InputError("--certify needs --baseline with the fp32 bundle that the certificate names as its reference")
    check_baseline(model.bundle, baseline.bundle)
    if _full(model) not in variants:
        raise InputError(
            f"--certify keeps the figures of {model.dim} dimensions in {_PRECISION}, which --dim or --precision leave out"
        )
    if rooted := [task.name for task in tasks if Path(task.name).is_absolute() or ".." in Path(task.name).parts]:
        raise InputError(f"--certify keeps the names of sets: give {rooted[0]} by its name below --data")
    if is_snapshot(model.bundle.folder) or (model.bundle.folder / MANIFEST_FILE).is_symlink():
        raise OutputError(
            f"{model.bundle.folder} is in the hub's cache, which other programs share, or consists of links into another "
            f"place: certify a copy of it, made with `cp -rL`"
        )
    if not os.access(model.bundle.folder, os.W_OK):
        raise OutputError(f"cannot write {model.bundle.folder / MANIFEST_FILE}: certify a bundle in a writable folder")


def check_baseline(bundle: Bundle, baseline: Bundle) -> None:
    """Make sure that a baseline is the fp32 bundle that a certificate compares with, or one of the same checkpoint.

    Raises:
        InputError: it is not.
    """
    finding = of_reference(bundle, baseline)
    if baseline.manifest.recipe != "fp32" or not finding.holds:
        raise InputError(
            f"{baseline.folder} ({baseline.manifest.recipe}, sha256 {str(finding.found)[:16]}…) is not the fp32 reference of "
            f"{bundle.folder}, whose certificate names {bundle.manifest.certificate.reference.kind} "
            f"{str(finding.stated)[:16]}…: give the bundle that it was made from"
        )


def certify(model: Embedder, result: Result) -> None:
    """Add a result to the certificate in the model's folder, which is replaced at once; sets certified earlier stay.

    Raises:
        OutputError: the folder cannot be written, or holds another bundle by now.
    """
    folder = model.bundle.folder
    manifest = read_manifest(folder)
    if manifest.files != model.bundle.manifest.files:
        raise OutputError(f"{folder} was replaced while it was evaluated: its certificate is left as it is")
    quality = manifest.certificate.quality | {result.name: quality_of(model, result)}
    with replacing_file(folder / MANIFEST_FILE) as partial:
        certified = replace(manifest, certificate=replace(manifest.certificate, quality=quality))
        partial.write_text(certified.to_json(), "utf-8")


def evaluated_again(
    names: Iterable[str], root: Path, model: Embedder, baseline: Embedder
) -> Iterator[tuple[str, Quality]]:
    """Measure certified sets once more.

    Args:
        names: of the sets, as the certificate has them.
        root: folder that the names are relative to.
        model: the certified model.
        baseline: the fp32 bundle that it is compared with.

    Yields:
        The name and what was found, set by set.

    Raises:
        InputError: a set is missing or not usable.
    """
    # What a corpus lacks was allowed or not when the set was certified; what matters here is the figure.
    tasks = [task for dataset in find(list(names), root, allow_absent=True) for task in dataset.tasks()]
    for task in tasks:
        result = measure(task, task.check(), model, baseline, [_full(model)])
        yield task.name, quality_of(model, result)


def quality_of(model: Embedder, result: Result) -> Quality:
    """The figure that stands for a result that has a baseline, at full width in float32."""
    if result.baseline is None:
        raise ValueError(f"{result.name} was measured without a baseline")
    figure, full = MAIN[result.kind], _full(model)
    return Quality(figure, result.figures[full][figure], result.baseline[full][figure])


def _full(model: Embedder) -> Variant:
    return Variant(model.dim, _PRECISION)
