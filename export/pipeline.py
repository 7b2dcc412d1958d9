"""`export`: make a bundle of a checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from moembed.bundle.bundle import Bundle
from moembed.bundle.certificate import Reference
from moembed.bundle.manifest import UNQUANTIZED, Manifest, Source
from moembed.errors import BundleError, CheckpointError, extra
from moembed.export.writer import check_replaceable, writing_bundle
from moembed.models.locate import OPTIONAL_FILES, REQUIRED_FILES, Checkpoint
from moembed.tokenizer.reference import ReferenceTokenizer
from moembed.tokenizer.tokenizer import Tokenizer
from moembed.verify.probes import probe_ids
from moembed.verify.tolerances import FP32
from moembed.version import __version__

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
    from moembed.export.graph import finish, router_outputs
    from moembed.export.trace import trace
    from moembed.models.checkpoint import load_network, stored_dtypes
    from moembed.verify.parity import network_runner

    config, spec = checkpoint.config, checkpoint.spec
    _check_tokenizer(checkpoint)
    dtypes = ", ".join(f"{count} {dtype}" for dtype, count in sorted(stored_dtypes(checkpoint.folder).items()))
    log(f"reading {checkpoint.folder} (tensors: {dtypes})")
    network = load_network(checkpoint.folder)
    log("tracing the encoder")
    model = finish(trace(network), config)
    with writing_bundle(out, _GRAPH, log) as writer:
        writer.write_graph(model, _properties(checkpoint) | {"weights_dtypes": dtypes})
        del model
        for name in writer.copy_interop_files(checkpoint.folder, [*REQUIRED_FILES, *OPTIONAL_FILES]):
            if (content := _default_interop_file(name, checkpoint)) is not None:
                writer.write_json(name, content)
        reference = Reference(kind="checkpoint", sha256=checkpoint.weights_sha256, size=checkpoint.weights_size)
        texts = probe_ids(Tokenizer(writer.folder / "tokenizer.json"), spec.max_tokens)
        written = writer.certify(reference, "the network (torch float32)", network_runner(network), texts, FP32)
        del network  # as large as what comes next
        writer.write_manifest(
            Manifest(
                name=spec.name,
                recipe=UNQUANTIZED,
                hidden_size=config.hidden_size,
                max_tokens=spec.max_tokens,
                dims=spec.dims,
                prompts=spec.prompts,
                prompt_required=spec.prompt_required,
                num_experts=config.num_experts,
                routers={layer: router_outputs(layer) for layer in config.moe_layers},
                source=Source(
                    repo=spec.repo,
                    revision=spec.revision,
                    config_sha256=checkpoint.config_sha256,
                    weights_sha256=checkpoint.weights_sha256,
                ),
                **written,
            )
        )
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


def _check_tokenizer(checkpoint: Checkpoint) -> None:
    path = checkpoint.folder / "tokenizer.json"
    try:
        size = ReferenceTokenizer(path).size
    except BundleError as error:
        raise CheckpointError(str(error)) from error
    if size > checkpoint.config.vocab_size:
        raise CheckpointError(
            f"{path} has {size} tokens, but the embedding table has {checkpoint.config.vocab_size} rows: the tokenizer is not "
            "that of the checkpoint"
        )


def _default_interop_file(name: str, checkpoint: Checkpoint) -> Any:
    """Return the content of an interop file that a checkpoint lacks, or None for a file that no loader needs."""
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
        "recipe": UNQUANTIZED,
        "version": __version__,
        "source": f"{spec.repo}@{spec.revision}" if spec.repo else "local",
        "weights_sha256": checkpoint.weights_sha256,
    }
