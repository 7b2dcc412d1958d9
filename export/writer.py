"""Writing of bundles: a folder that appears complete, compared with its reference and certified, or not at all."""

import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from moembed.bundle.bundle import Bundle, read_manifest, sha256_of
from moembed.bundle.certificate import Certificate, Reference, ReproducedExample
from moembed.bundle.manifest import MANIFEST_FILE, FileRecord, Manifest, Source
from moembed.errors import BundleError, OutputError, VerificationError
from moembed.export.vocabulary import write_vocabulary
from moembed.files.paths import is_content, replacing_folder, unwritable
from moembed.hub.layout import is_snapshot
from moembed.models.interop_files import copy_interop_file
from moembed.models.spec import ModelSpec, known_model
from moembed.models.weights import WEIGHTS_FILE
from moembed.tokenizer.native import VOCABULARY_FILE
from moembed.tokenizer.tokenizer import Tokenizer
from moembed.verify.examples import run_examples
from moembed.verify.int8_calibration import calibrate
from moembed.verify.machine import this_machine
from moembed.verify.stability import check_stability
from moembed.verify.tolerances import FP32
from moembed.version import __version__

if TYPE_CHECKING:
    import onnx_ir as ir

    from moembed.verify.outputs import Runner
    from moembed.verify.tolerances import Tolerance

# Distribution -> its module, of what may take part in writing a bundle.
_WRITERS = {
    "numpy": "numpy",
    "onnx": "onnx",
    "onnx-ir": "onnx_ir",
    "onnxruntime": "onnxruntime",
    "onnxscript": "onnxscript",
    "torch": "torch",
}
_PAGE = 4096
_INLINE_BYTES = 1024


class Written(TypedDict):
    """Fields of a manifest that describe the files of a bundle and how they were made."""

    graph: str
    made_with: dict[str, str]
    certificate: Certificate
    files: dict[str, FileRecord]


@contextmanager
def writing_bundle(out: Path, graph: str, log: Callable[[str], None]) -> Iterator["BundleWriter"]:
    """Open a writer of a new bundle, which takes the place of `out` when the context ends without an error.

    Args:
        out: the bundle's folder; `check_replaceable` decides whether it may be replaced.
        graph: path of the ONNX file in it.
        log: receives progress messages.

    Raises:
        OutputError: `out` cannot be written.
    """
    with replacing_folder(out) as folder:
        log(f"writing {out}")
        yield BundleWriter(folder, graph, log)


@dataclass(frozen=True)
class BundleWriter:
    """Writer of one bundle's files to a staging folder, from the graph to the manifest.

    Attributes:
        folder: the staging folder.
        graph: path of the ONNX file in it.
        log: receives progress messages.
    """

    folder: Path
    graph: str
    log: Callable[[str], None]

    def write_graph(self, model: "ir.Model", properties: dict[str, str]) -> None:
        """Write the graph with some metadata, and its weights beside it."""
        write_graph(model, self.folder / self.graph, properties)

    def copy_interop_files(self, source: Path, names: Sequence[str]) -> list[str]:
        """Copy the tokenizer and the small files that other loaders read; write `vocabulary.bin` if it is not among them.

        Args:
            source: folder of a checkpoint or a bundle.
            names: paths in it, `tokenizer.json` among them.

        Returns:
            The names that `source` does not have.
        """
        for name in names:
            (self.folder / name).parent.mkdir(exist_ok=True)
            if (source / name).is_file():
                copy_interop_file(source / name, self.folder / name, name=name)
        if not (self.folder / VOCABULARY_FILE).exists():
            write_vocabulary(self.folder)
        return [name for name in names if not (self.folder / name).exists()]

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file."""
        (self.folder / name).write_text(json.dumps(content, indent=2) + "\n", "utf-8")

    def certify(
        self,
        reference: Reference,
        name: str,
        expected: "Runner",
        texts: Sequence[list[int]],
        tolerance: "Tolerance",
        *,
        source: Source,
        prompts: Mapping[str, str],
        near_ties: Collection[str] = (),
        advice: Callable[[], str] = lambda: "",
    ) -> Written:
        """Compare the graph with its reference and with published examples, once all other files are there.

        Args:
            reference: identity of the reference.
            name: what to call it in messages.
            expected: the reference.
            texts: token ids of the texts to compare.
            tolerance: largest distance.
            source: the checkpoint. Those of known models must reproduce the published examples.
            prompts: prompt name -> text in front, as the manifest will have them.
            near_ties: names of the published examples that the reference's certificate excuses.
            advice: returns the end of the error's sentence if the graph is too far from the reference.

        Returns:
            The manifest's fields about the files; the stability in the certificate is not yet checked.

        Raises:
            VerificationError: the graph is too far from the reference, or one of them does not reproduce a published example.
        """
        from moembed.verify.parity import compare, graph_runner

        self.log(f"comparing the graph with {name}")
        found = graph_runner(self.folder / self.graph)
        report = compare(name, expected, found, texts, tolerance)
        if not report.passed:
            raise VerificationError(f"the graph differs from {name}: {'; '.join(report.problems)}{advice()}")
        judged = {"the bundle": (found, tolerance)}
        if not tolerance.exact:
            judged[name] = expected, FP32  # it shows what quantization hides
        examples = None
        if (known := known_model(source)) is not None and known.examples.all:
            examples = self._reproduce(known, prompts, judged, expected, near_ties)
        del found
        files = _file_records(self.folder)
        certificate = Certificate(
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
            examples=examples,
        )
        return Written(graph=self.graph, made_with=_writer_versions(), certificate=certificate, files=files)

    def _reproduce(
        self,
        known: ModelSpec,
        prompts: Mapping[str, str],
        judged: "dict[str, tuple[Runner, Tolerance]]",
        reference: "Runner",
        near_ties: Collection[str],
    ) -> dict[str, ReproducedExample]:
        """Run the published examples of a known model; return the figures of the first one judged for the certificate."""
        self.log(f"reproducing {len(known.examples.all)} published examples")
        tokenizer = Tokenizer(self.folder / "tokenizer.json")
        results = {
            who: run_examples(known.examples, prompts, tokenizer, runner, tolerance, reference, near_ties)
            for who, (runner, tolerance) in judged.items()
        }
        for who, found in results.items():
            if failed := [str(result) for result in found if not result.passed]:
                raise VerificationError(_refusal(known, who, failed, len(found)))
        first = next(iter(results.values()))
        for result in first:
            if result.example.unresolved:
                self.log(str(result))
        return {result.example.name: result.record() for result in first if not result.example.unresolved}

    def write_manifest(self, manifest: Manifest) -> None:
        """Add what needs the otherwise complete bundle, batch invariance and the scales of int8 vectors; write the manifest.

        A bundle that is not batch-invariant is written too: its certificate says so, and `moembed verify` fails.
        """
        self.log("checking batch invariance")
        stability = check_stability(Bundle(self.folder, manifest), quick=True)
        if not stability.passed:
            self.log(
                f"not batch-invariant on this machine: {stability.differing} of {stability.comparisons} vectors differ "
                f"(max-abs {stability.max_abs:.3g}); the certificate records it, and `moembed verify` will fail"
            )
        self.log("calibrating int8 vectors")
        int8 = calibrate(Bundle(self.folder, manifest))
        complete = replace(manifest, certificate=replace(manifest.certificate, stability=stability), int8=int8)
        (self.folder / MANIFEST_FILE).write_text(complete.to_json(), "utf-8")


def _refusal(known: ModelSpec, who: str, failed: Sequence[str], count: int) -> str:
    if known.pins_weights:
        return (
            f"the weights are those of a known model, but {who} does not reproduce {len(failed)} of its {count} published "
            f"examples, so no bundle is written: {'; '.join(failed)}. This is a fault of this conversion or its environment: "
            "upgrade moembed and onnxruntime, or report it"
        )
    return (
        f"the model is {known.repo} by its name and commit, whose weights are not pinned: no digest of them is known. {who} does "
        f"not reproduce {len(failed)} of its {count} published examples, so no bundle is written: {'; '.join(failed)}. Either "
        "these are not the published weights, or this is a fault of this conversion or its environment: compare "
        f"{WEIGHTS_FILE} with the file on the hub, upgrade moembed and onnxruntime, or report it. A folder of the files is "
        "converted without this comparison"
    )


def check_replaceable(out: Path, *, force: bool) -> None:
    """Make sure that writing to `out` destroys nothing but, with `force`, another bundle.

    Raises:
        OutputError: it would.
    """
    try:
        if not out.exists() and not out.is_symlink():
            return
    except OSError as error:
        raise unwritable(out, error) from error
    if out.is_dir() and not out.is_symlink() and not any(map(is_content, out.iterdir())):
        return
    try:
        read_manifest(out)
    except BundleError:
        raise OutputError(f"{out} exists and is not a bundle, so it is left as it is: choose another folder") from None
    if is_snapshot(out):
        raise OutputError(f"{out} is in the hub cache, which other programs share: choose another folder")
    if not force:
        raise OutputError(f"{out} is already a bundle: choose another folder, or replace it with --force")


def write_graph(model: "ir.Model", path: Path, properties: dict[str, str]) -> None:
    """Write a model with its weights beside it, page-aligned, so that a runtime can map a tensor and read it in place."""
    import onnx_ir as ir

    model.producer_name, model.producer_version = "moembed", __version__
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


def _file_records(folder: Path) -> dict[str, FileRecord]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): FileRecord(path.stat().st_size, sha256_of(path)) for path in paths}


def _writer_versions() -> dict[str, str]:
    """Return the versions of everything that this process has loaded to write a bundle."""
    loaded = {name: sys.modules.get(module) for name, module in _WRITERS.items()}
    versions = {name: str(getattr(module, "__version__", "unknown")) for name, module in loaded.items() if module}
    return {"moembed": __version__} | versions
