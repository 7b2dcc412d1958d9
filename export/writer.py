"""Writing bundles: the graph's file, the certificate, the manifest, and care for what is at the destination already."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from moembed.bundle.bundle import Bundle, read_manifest, sha256_of
from moembed.bundle.certificate import Certificate, Reference
from moembed.bundle.hub import is_snapshot
from moembed.bundle.manifest import MANIFEST_FILE, FileRecord, Manifest
from moembed.errors import BundleError, OutputError, VerificationError
from moembed.verify.machine import this_machine
from moembed.verify.stability import check_stability
from moembed.version import __version__

if TYPE_CHECKING:
    import onnx_ir as ir

    from moembed.verify.parity import ParityReport

_WRITERS = ("torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime")
_PAGE = 4096
_INLINE_BYTES = 1024


def check_replaceable(out: Path, *, force: bool) -> None:
    """Make sure that writing to `out` destroys nothing but, with `force`, another bundle.

    Raises:
        OutputError: it would.
    """
    if not out.exists() and not out.is_symlink():
        return
    if out.is_dir() and not out.is_symlink() and not any(out.iterdir()):
        return
    try:
        read_manifest(out)
    except BundleError:
        raise OutputError(f"{out} exists and is not a bundle: choose another place, it is left as it is") from None
    if is_snapshot(out):
        raise OutputError(f"{out} is in the hub's cache, which other programs share: choose another place")
    if not force:
        raise OutputError(f"{out} is a bundle already: choose another place, or replace it with --force")


def write_graph(model: "ir.Model", path: Path, properties: dict[str, str]) -> None:
    """Write a model with its weights beside it, page by page, so that a runtime can map a tensor and read it in place."""
    import onnx_ir as ir

    model.metadata_props.update({f"moembed.{name}": value for name, value in properties.items()})
    path.parent.mkdir(parents=True)
    ir.save(
        model,
        path,
        external_data=path.name + "_data",
        size_threshold_bytes=_INLINE_BYTES,
        alignment=_PAGE,
        align_threshold=0,
    )


def certificate_of(report: "ParityReport", reference: Reference, files: Mapping[str, FileRecord]) -> Certificate:
    """The certificate of a bundle that was compared with its reference on this machine; its stability is yet to be checked.

    Raises:
        VerificationError: the comparison failed.
    """
    if not report.passed:
        raise VerificationError(f"the graph is not that of {report.reference}: " + "; ".join(report.problems))
    return Certificate(
        reference=reference,
        texts=report.texts,
        tokens=report.tokens,
        embedding_mean_cosine=report.embedding_mean_cosine,
        embedding_min_cosine=report.embedding_min_cosine,
        embedding_max_abs=report.embedding_max_abs,
        hidden_max_abs=report.hidden_max_abs,
        neighbour_overlap=report.neighbour_overlap,
        same_experts={layer: routing.share for layer, routing in report.routing.items()},
        size=sum(record.size for record in files.values()),
        machine=this_machine(),
    )


def write_manifest(folder: Path, manifest: Manifest, log: Callable[[str], None]) -> None:
    """Check the byte stability of a bundle that is otherwise complete, put it into the certificate and write the manifest.

    An unstable bundle is written too: its certificate says so, and `moembed verify` fails.
    """
    log("embedding the same texts in other company")
    stability = check_stability(Bundle(folder, manifest), sparing=True)
    if not stability.passed:
        log(
            f"not byte-stable on this machine: {stability.differing} of {stability.comparisons} vectors differ "
            f"(max-abs {stability.max_abs:.3g}); the certificate says so, and `moembed verify` will fail"
        )
    complete = replace(manifest, certificate=replace(manifest.certificate, stability=stability))
    (folder / MANIFEST_FILE).write_text(complete.to_json(), "utf-8")


def file_records(folder: Path) -> dict[str, FileRecord]:
    """Size and sha256 of every file under a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): FileRecord(path.stat().st_size, sha256_of(path)) for path in paths}


def writer_versions() -> dict[str, str]:
    """Versions of everything that has a hand in writing a bundle."""
    return {"moembed": __version__} | {name: metadata.version(name) for name in _WRITERS}
