"""`convert`: make an INT8 bundle of a checkpoint without torch."""

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from moembed.bundle.bundle import Bundle
from moembed.errors import CheckpointError, MissingExtraError
from moembed.export.contents import (
    check_tokenizer,
    described_tensors,
    graph_properties,
    manifest_of,
    reference_of,
    source_of,
    write_interop_files,
)
from moembed.export.writer import check_replaceable, write_graph, writing_bundle
from moembed.files.staging import staging_folder
from moembed.models.checkpoint import open_checkpoint
from moembed.models.locate import Checkpoint
from moembed.models.spec import known_model
from moembed.quantize.pipeline import (
    GRAPH,
    advice,
    calibration_ids,
    measured_sensitivities,
    most_sensitive,
    need_packages,
    quantized,
)
from moembed.quantize.recipe import load_recipe
from moembed.tokenizer.tokenizer import Tokenizer
from moembed.verify.probes import probe_ids

if TYPE_CHECKING:
    import onnx_ir as ir

    from moembed.models.config import NetworkConfig
    from moembed.models.weights import Weights
    from moembed.quantize.recipe import Recipe
    from moembed.tokenizer.tokenizer import Ids


def convert(
    checkpoint: Checkpoint,
    out: Path,
    *,
    recipe: str = "int8",
    force: bool = False,
    log: Callable[[str], None] = lambda _text: None,
) -> Bundle:
    """Quantize a checkpoint, and write it as a bundle: the same graph and weights as `export` and `quantize` give.

    Args:
        checkpoint: from `moembed.models.locate.locate`.
        out: the folder to write; it appears complete or not at all.
        recipe: name of a recipe in `moembed.quantize`'s `recipes/`.
        force: replace `out` if it is a bundle already.
        log: receives progress messages.

    Returns:
        The bundle, opened.

    Raises:
        CheckpointError: the tensors or the tokenizer are not those of the configured network, or there is no template of it
            and torch is not installed.
        InputError: the recipe is unknown, or a width does not fit the INT8 layout.
        OutputError: `out` exists and may not be replaced, or cannot be written.
        VerificationError: the graph does not compute what the checkpoint does; nothing is left behind.
        MissingExtraError: a package of the extra `convert` is not installed.
    """
    settings = load_recipe(recipe)
    check_replaceable(out, force=force)
    need_packages("Converting a checkpoint")
    from moembed.export.weights import fill
    from moembed.models.oracle import Oracle
    from moembed.verify.parity import oracle_runner

    check_tokenizer(checkpoint)
    with open_checkpoint(checkpoint.folder, "np") as (config, weights):
        log(f"reading {checkpoint.folder} (tensors: {described_tensors(weights)})")
        tokenizer, limit = Tokenizer(checkpoint.folder / "tokenizer.json"), checkpoint.spec.max_tokens
        texts, probes = calibration_ids(tokenizer, checkpoint.spec.prompts, limit), probe_ids(tokenizer, limit)

        @cache  # a recipe that keeps layers measures them, and advice on it needs the same figures
        def measured() -> dict[str, float]:
            return _sensitivities(config, weights, settings, texts, probes, out.parent)

        keep = most_sensitive(measured(), settings) if settings.keep else ()
        model = quantized(fill(_graph_of(config), config, weights), settings, texts, keep=keep, log=log)
        with writing_bundle(out, GRAPH, log) as writer:
            writer.write_graph(model, graph_properties(checkpoint, weights, recipe))
            del model
            write_interop_files(writer, checkpoint)
            log("computing the reference vectors")
            source = source_of(checkpoint)
            known = known_model(source)
            with closing(Oracle(checkpoint.folder)) as oracle:
                expected = oracle_runner(oracle, [*probes, *(known.examples.ids if known else [])])
            written = writer.certify(
                reference_of(checkpoint),
                "the checkpoint (numpy float64)",
                expected,
                probes,
                settings.tolerance,
                source=source,
                prompts=checkpoint.spec.prompts,
                advice=lambda: advice(measured(), recipe),
            )
            writer.write_manifest(manifest_of(checkpoint, recipe, written))
    return Bundle.open(out)


def _graph_of(config: "NetworkConfig") -> "ir.Model":
    """Return the graph of a network without its weights: a template, or a new trace where torch is installed."""
    from moembed.export.templates import find_template, make_template

    if (template := find_template(config)) is not None:
        return template
    try:
        return make_template(config)
    except MissingExtraError as error:
        raise CheckpointError(
            f"moembed has no template of a network of {config.num_layers} layers of width {config.hidden_size} with "
            f"{config.num_experts or 'no'} experts, and cannot trace one: {error}"
        ) from error


def _sensitivities(
    config: "NetworkConfig",
    weights: "Weights",
    recipe: "Recipe",
    texts: Sequence["Ids"],
    probes: list[list[int]],
    parent: Path,
) -> dict[str, float]:
    """Return the sensitivities of the linear layers; a float32 graph shows them, in a temporary folder in `parent`."""
    from moembed.export.weights import fill

    with staging_folder(parent) as folder:
        path = folder / "onnx" / "model.onnx"
        write_graph(fill(_graph_of(config), config, weights), path, {})
        return measured_sensitivities(path, recipe, texts, probes)
