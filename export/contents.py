"""Contents of a bundle that come from its checkpoint, beside the weights."""

from typing import Any

from moembed.bundle.certificate import Reference
from moembed.bundle.manifest import Manifest, Source
from moembed.errors import BundleError, CheckpointError
from moembed.export.writer import BundleWriter, Written
from moembed.models.checkpoint import stored_dtypes
from moembed.models.locate import OPTIONAL_FILES, REQUIRED_FILES, Checkpoint
from moembed.models.pooling import Pooling
from moembed.models.roles import router_outputs
from moembed.models.tokenizer_files import check_normalizer, tokenizer_class
from moembed.models.weights import Weights
from moembed.tokenizer.reference import ReferenceTokenizer
from moembed.version import __version__


def check_tokenizer(checkpoint: Checkpoint) -> None:
    """Compare the tokenizer with the table of word embeddings.

    Raises:
        CheckpointError: it cannot be read, has more tokens than the table has rows, or another file contradicts it.
    """
    path = checkpoint.folder / "tokenizer.json"
    try:
        size = ReferenceTokenizer(path).largest_id() + 1
    except BundleError as error:
        raise CheckpointError(str(error)) from error
    if size > checkpoint.config.vocab_size:
        raise CheckpointError(
            f"{path} has {size} tokens, but the embedding table has {checkpoint.config.vocab_size} rows: the tokenizer is not "
            "that of the checkpoint"
        )
    check_normalizer(checkpoint.folder)


def described_tensors(weights: Weights) -> str:
    """Describe the tensors of a checkpoint, such as "148 float32, named behind 'module.'"."""
    return stored_dtypes(weights) + (f", named behind {weights.prefix!r}" if weights.prefix else "")


def graph_properties(checkpoint: Checkpoint, weights: Weights, recipe: str) -> dict[str, str]:
    """Return the metadata of the graph."""
    spec = checkpoint.spec
    return {
        "name": spec.name,
        "recipe": recipe,
        "version": __version__,
        "source": f"{spec.repo}@{spec.revision}" if spec.repo else "local",
        "weights_sha256": checkpoint.weights_sha256,
        "weights_dtypes": stored_dtypes(weights),
    }


def reference_of(checkpoint: Checkpoint) -> Reference:
    """Return the identity of the checkpoint in a certificate."""
    return Reference(kind="checkpoint", sha256=checkpoint.weights_sha256, size=checkpoint.weights_size)


def source_of(checkpoint: Checkpoint) -> Source:
    """Return the origin of the checkpoint."""
    return Source(
        repo=checkpoint.spec.repo,
        revision=checkpoint.spec.revision,
        config_sha256=checkpoint.config_sha256,
        weights_sha256=checkpoint.weights_sha256,
    )


def manifest_of(checkpoint: Checkpoint, recipe: str, written: Written) -> Manifest:
    """Return the manifest of a bundle."""
    config, spec = checkpoint.config, checkpoint.spec
    return Manifest(
        name=spec.name,
        recipe=recipe,
        hidden_size=config.hidden_size,
        max_tokens=spec.max_tokens,
        limit_source=spec.limit_source,
        dims=spec.dims,
        prompts=spec.prompts,
        prompt_required=spec.prompt_required,
        pooling=config.pooling.value,
        pooled_layer_norm=config.pooled_layer_norm,
        num_experts=config.num_experts,
        routers={layer: router_outputs(layer) for layer in config.moe_layers},
        source=source_of(checkpoint),
        **written,
    )


def write_interop_files(writer: BundleWriter, checkpoint: Checkpoint) -> None:
    """Write the tokenizer, and the small files that other loaders read, also those that the checkpoint lacks."""
    for name in writer.copy_interop_files(checkpoint.folder, [*REQUIRED_FILES, *OPTIONAL_FILES]):
        if (content := _default_interop_file(name, checkpoint)) is not None:
            if name == "tokenizer_config.json":
                content = {"tokenizer_class": tokenizer_class(checkpoint.folder), **content}
            writer.write_json(name, content)


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
            **{mode.flag: mode == checkpoint.config.pooling for mode in (Pooling.FIRST, Pooling.MEAN)},
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
        "tokenizer_config.json": {"model_max_length": spec.max_tokens},
    }.get(name)
