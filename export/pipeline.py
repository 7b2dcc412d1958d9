"""`export`: a checkpoint becomes a bundle, checked before it is published."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moembed.bundle.bundle import Bundle
from moembed.bundle.certificate import Reference
from moembed.bundle.manifest import Manifest, Source
from moembed.errors import BundleError, CheckpointError, MissingExtraError
from moembed.export.vocabulary import write_vocabulary
from moembed.export.writer import (
    certificate_of,
    check_replaceable,
    file_records,
    write_graph,
    write_manifest,
    writer_versions,
)
from moembed.files.paths import replacing_folder
from moembed.models.interop_files import copy_companion
from moembed.models.locate import OPTIONAL_FILES, Checkpoint
from moembed.tokenizer.reference import ReferenceTokenizer
from moembed.tokenizer.tokenizer import Tokenizer
from moembed.verify.probes import probe_ids
from moembed.verify.tolerances import TOLERANCES
from moembed.version import __version__

if TYPE_CHECKING:
    from moembed.verify.parity import ParityReport

GRAPH = "onnx/model.onnx"
RECIPE = "fp32"


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
        log: told what is being done.

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
    from moembed.export.graph import finish
    from moembed.export.trace import trace
    from moembed.models.checkpoint import load_network, stored_dtypes
    from moembed.verify.parity import compare, observe_graph, observe_network

    _check_tokenizer(checkpoint)
    dtypes = ", ".join(f"{count} {dtype}" for dtype, count in sorted(stored_dtypes(checkpoint.folder).items()))
    log(f"reading {checkpoint.folder} (tensors: {dtypes})")
    network = load_network(checkpoint.folder)
    log("tracing the encoder")
    model = finish(trace(network), checkpoint.config)
    with replacing_folder(out) as partial:
        log(f"writing {out}")
        write_graph(model, partial / GRAPH, _properties(checkpoint) | {"weights_dtypes": dtypes})
        del model
        _write_companions(checkpoint, partial)
        write_vocabulary(partial)
        log("checking the graph against the network")
        texts = probe_ids(Tokenizer(partial / "tokenizer.json"), checkpoint.spec.max_tokens)
        found = observe_graph(partial / GRAPH)
        report = compare("torch float32", observe_network(network), found, texts, TOLERANCES[RECIPE])
        del network, found  # as large as what comes next
        write_manifest(partial, _manifest(checkpoint, report, partial), log)
    return Bundle.open(out)


def need_extras() -> None:
    """Make sure that tracing is possible, before anything is downloaded.

    Raises:
        MissingExtraError: torch, onnx, onnx-ir or onnxscript is not installed.
    """
    for package in ("torch", "onnx", "onnx_ir", "onnxscript"):
        try:
            __import__(package)
        except ImportError:
            raise MissingExtraError(package, "export", "Exporting a checkpoint") from None


def _check_tokenizer(checkpoint: Checkpoint) -> None:
    path = checkpoint.folder / "tokenizer.json"
    try:
        size = ReferenceTokenizer(path).size
    except BundleError as error:
        raise CheckpointError(str(error)) from error
    if size > checkpoint.config.vocab_size:
        raise CheckpointError(f"{path} has {size} pieces, the embedding table {checkpoint.config.vocab_size} rows")


def _write_companions(checkpoint: Checkpoint, folder: Path) -> None:
    """Copy the small files beside the weights, and write those by which other loaders know the model if they lack."""
    for name in ("config.json", "tokenizer.json", *OPTIONAL_FILES):
        source, target = checkpoint.folder / name, folder / name
        target.parent.mkdir(exist_ok=True)
        if source.is_file():
            copy_companion(source, target, name=name)
        elif (content := _default_companion(name, checkpoint)) is not None:
            target.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _default_companion(name: str, checkpoint: Checkpoint) -> Any:
    spec = checkpoint.spec
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    return {
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(kinds)
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": checkpoint.config.hidden_size,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
            "include_prompt": True,
        },
        "sentence_bert_config.json": {"max_seq_length": spec.max_tokens, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "prompts": spec.prompts,
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
        "tokenizer_config.json": {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": spec.max_tokens},
    }.get(name)


def _properties(checkpoint: Checkpoint) -> dict[str, str]:
    spec = checkpoint.spec
    return {
        "name": spec.name,
        "recipe": RECIPE,
        "version": __version__,
        "source": f"{spec.repo}@{spec.revision}" if spec.repo else "local",
        "weights_sha256": checkpoint.weights_sha256,
    }


def _manifest(checkpoint: Checkpoint, report: "ParityReport", folder: Path) -> Manifest:
    from moembed.export.graph import router_outputs

    spec, files = checkpoint.spec, file_records(folder)
    reference = Reference(kind="checkpoint", sha256=checkpoint.weights_sha256, size=checkpoint.weights_size)
    return Manifest(
        name=spec.name,
        recipe=RECIPE,
        graph=GRAPH,
        hidden_size=checkpoint.config.hidden_size,
        max_tokens=spec.max_tokens,
        dims=spec.dims,
        prompts=spec.prompts,
        prompt_required=spec.prompt_required,
        num_experts=checkpoint.config.num_experts,
        routers={layer: router_outputs(layer) for layer in checkpoint.config.moe_layers},
        source=Source(
            repo=spec.repo,
            revision=spec.revision,
            config_sha256=checkpoint.config_sha256,
            weights_sha256=checkpoint.weights_sha256,
        ),
        made_with=writer_versions(),
        certificate=certificate_of(report, reference, files),
        files=files,
    )
