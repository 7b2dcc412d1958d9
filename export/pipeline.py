"""`export`: make a bundle of a checkpoint."""

from collections.abc import Callable
from pathlib import Path

from moembed.bundle.bundle import Bundle
from moembed.bundle.manifest import UNQUANTIZED
from moembed.errors import extra
from moembed.export.contents import (
    check_tokenizer,
    described_tensors,
    graph_properties,
    manifest_of,
    reference_of,
    source_of,
    write_interop_files,
)
from moembed.export.writer import check_replaceable, writing_bundle
from moembed.models.locate import Checkpoint
from moembed.tokenizer.tokenizer import Tokenizer
from moembed.verify.probes import probe_ids
from moembed.verify.tolerances import FP32

_GRAPH = "onnx/model.onnx"


def export(
    checkpoint: Checkpoint,
    out: Path,
    *,
    force: bool = False,
    log: Callable[[str], None] = lambda _text: None,
) -> Bundle:
    """Trace a checkpoint and write it as a bundle.

    Args:
        checkpoint: from `moembed.models.locate.locate`.
        out: the folder to write; it appears complete or not at all.
        force: replace `out` if it is a bundle already.
        log: receives progress messages.

    Returns:
        The bundle, opened.

    Raises:
        CheckpointError: the tensors or the tokenizer are not those of the configured network.
        OutputError: `out` exists and may not be replaced, or cannot be written.
        VerificationError: the graph does not compute what the network does; nothing is left behind.
        MissingExtraError: torch, onnx, onnx-ir or onnxscript is not installed.
    """
    check_replaceable(out, force=force)
    need_extras()
    from moembed.export.templates import make_template
    from moembed.export.weights import fill
    from moembed.models.checkpoint import load_network, open_checkpoint
    from moembed.verify.parity import network_runner

    check_tokenizer(checkpoint)
    with open_checkpoint(checkpoint.folder, "np") as (config, weights):
        log(f"reading {checkpoint.folder} (tensors: {described_tensors(weights)})")
        network = load_network(checkpoint.folder)
        log("tracing the encoder")
        template = make_template(config)
        with writing_bundle(out, _GRAPH, log) as writer:
            writer.write_graph(fill(template, config, weights), graph_properties(checkpoint, weights, UNQUANTIZED))
            write_interop_files(writer, checkpoint)
            texts = probe_ids(Tokenizer(writer.folder / "tokenizer.json"), checkpoint.spec.max_tokens)
            expected = network_runner(network)
            written = writer.certify(
                reference_of(checkpoint),
                "the network (torch float32)",
                expected,
                texts,
                FP32,
                source=source_of(checkpoint),
                prompts=checkpoint.spec.prompts,
            )
            del network, expected  # as large as what comes next
            writer.write_manifest(manifest_of(checkpoint, UNQUANTIZED, written))
    return Bundle.open(out)


def need_extras(purpose: str = "Exporting a checkpoint") -> None:
    """Make sure that bundles can be written, before anything is downloaded.

    Args:
        purpose: beginning of the error's sentence.

    Raises:
        MissingExtraError: torch, onnx, onnx-ir or onnxscript is not installed.
    """
    with extra("export", purpose):
        import onnx  # noqa: F401
        import onnx_ir  # noqa: F401
        import onnxscript  # noqa: F401
        import torch  # noqa: F401
