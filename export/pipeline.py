"""`export`: a checkpoint becomes a bundle, checked before it is published."""

import json
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from moembed.bundle import Bundle, read_manifest, sha256_of
from moembed.errors import BundleError, CheckpointError, InputError, MissingExtraError, OutputError, VerificationError
from moembed.manifest import MANIFEST_FILE, RECIPES, FileRecord, Manifest, Source
from moembed.models.sources import OPTIONAL_FILES, Checkpoint
from moembed.paths import replacing_folder
from moembed.probes import probe_texts
from moembed.version import __version__

GRAPH = "onnx/model.onnx"
_WRITERS = ("torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime")
_PAGE = 4096
_INLINE_BYTES = 1024


def export(
    checkpoint: Checkpoint,
    out: Path,
    *,
    recipe: str = "fp32",
    force: bool = False,
    say: Callable[[str], None] = lambda _text: None,
) -> Bundle:
    """Trace a checkpoint and write it as a bundle.

    Args:
        checkpoint: from `moembed.models.sources.locate`.
        out: the folder to write; it appears complete or not at all.
        recipe: `"fp32"` or `"int8-storage"`.
        force: replace `out` if it is a bundle already.
        say: told what is being done.

    Returns:
        The bundle, opened.

    Raises:
        CheckpointError: the tensors or the tokenizer are not those of the configured network.
        OutputError: `out` exists and may not be replaced, or cannot be written.
        VerificationError: the graph does not compute what the network does; nothing is left behind.
        MissingExtraError: torch, onnx, onnx-ir or onnxscript is not installed.
        InputError: the recipe is unknown.
    """
    if recipe not in RECIPES:
        raise InputError(f"recipe = {recipe!r}; expected one of {', '.join(RECIPES)}")
    check_replaceable(out, force=force)
    need_extras()
    from moembed.export.graph import finish
    from moembed.export.trace import trace
    from moembed.models.checkpoint import load_network
    from moembed.quantize.storage import store_int8

    _check_tokenizer(checkpoint)
    say(f"reading {checkpoint.folder}")
    network = load_network(checkpoint.folder)
    say("tracing the encoder")
    model = finish(trace(network), checkpoint.config)
    if recipe == "int8-storage":
        say("storing weights as int8")
        model = store_int8(model)
    with replacing_folder(out) as partial:
        say(f"writing {out}")
        _write_graph(model, partial / GRAPH, checkpoint, recipe)
        del model
        _write_companions(checkpoint, partial)
        say("checking the graph against the network")
        certificate = _certificate(partial / GRAPH, network, checkpoint, recipe)
        manifest = _manifest(checkpoint, recipe, certificate, partial)
        (partial / MANIFEST_FILE).write_text(manifest.to_json(), "utf-8")
    return Bundle.open(out)


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
    if not force:
        raise OutputError(f"{out} is a bundle already: choose another place, or replace it with --force")


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
        size = Tokenizer.from_file(str(path)).get_vocab_size(with_added_tokens=True)
    except Exception as error:  # tokenizers raises plain Exception
        raise CheckpointError(f"{path} is not a readable tokenizer: {error}") from error
    if size > checkpoint.config.vocab_size:
        raise CheckpointError(f"{path} has {size} pieces, the embedding table {checkpoint.config.vocab_size} rows")


def _write_graph(model: Any, path: Path, checkpoint: Checkpoint, recipe: str) -> None:
    import onnx_ir as ir

    spec = checkpoint.spec
    model.metadata_props.update(
        {
            "moembed.name": spec.name,
            "moembed.recipe": recipe,
            "moembed.version": __version__,
            "moembed.source": f"{spec.repo}@{spec.revision}" if spec.repo else "local",
            "moembed.weights_sha256": checkpoint.weights_sha256,
        }
    )
    path.parent.mkdir(parents=True)
    # Page-aligned, so that a runtime can map a tensor and a kernel can read it in place.
    ir.save(
        model,
        path,
        external_data=path.name + "_data",
        size_threshold_bytes=_INLINE_BYTES,
        alignment=_PAGE,
        align_threshold=0,
    )


def _write_companions(checkpoint: Checkpoint, folder: Path) -> None:
    """Copy the small files beside the weights, and write those by which other loaders know the model if they lack."""
    for name in ("config.json", "tokenizer.json", *OPTIONAL_FILES):
        source, target = checkpoint.folder / name, folder / name
        target.parent.mkdir(exist_ok=True)
        if source.is_file():
            shutil.copyfile(source, target)
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


def _certificate(graph: Path, network: Any, checkpoint: Checkpoint, recipe: str) -> dict[str, Any]:
    from moembed.export.parity import compare, observe_graph, observe_network
    from moembed.export.tolerances import TOLERANCES

    encodings = Tokenizer.from_file(str(checkpoint.folder / "tokenizer.json")).encode_batch(probe_texts())
    texts = [encoding.ids[: checkpoint.spec.max_tokens] for encoding in encodings]
    report = compare("torch", observe_network(network), observe_graph(graph), texts, TOLERANCES[recipe])
    if not report.passed:
        raise VerificationError("the exported graph is not the network: " + "; ".join(report.problems))
    return {
        "reference": "torch float32",
        "texts": report.texts,
        "tokens": report.tokens,
        "embedding_min_cosine": report.embedding_min_cosine,
        "embedding_max_abs": report.embedding_max_abs,
        "hidden_max_abs": report.hidden_max_abs,
        "same_experts": {str(layer): r.same_experts / r.tokens for layer, r in report.routing.items()},
    }


def _manifest(checkpoint: Checkpoint, recipe: str, certificate: dict[str, Any], folder: Path) -> Manifest:
    spec = checkpoint.spec
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {path.relative_to(folder).as_posix(): FileRecord(path.stat().st_size, sha256_of(path)) for path in paths}
    return Manifest(
        name=spec.name,
        recipe=recipe,
        graph=GRAPH,
        hidden_size=checkpoint.config.hidden_size,
        max_tokens=spec.max_tokens,
        dims=spec.dims,
        prompts=spec.prompts,
        prompt_required=spec.prompt_required,
        source=Source(
            repo=spec.repo,
            revision=spec.revision,
            config_sha256=checkpoint.config_sha256,
            weights_sha256=checkpoint.weights_sha256,
        ),
        made_with={"moembed": __version__} | {name: metadata.version(name) for name in _WRITERS},
        certificate=certificate,
        files=files,
    )
