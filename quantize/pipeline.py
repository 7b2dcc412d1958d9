"""`quantize`: make an INT8 bundle of an fp32 bundle."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from moembed.bundle.bundle import Bundle
from moembed.bundle.certificate import Reference
from moembed.bundle.external_data import read_graph
from moembed.bundle.manifest import UNQUANTIZED
from moembed.errors import InputError, extra
from moembed.export.writer import check_replaceable, writing_bundle
from moembed.tokenizer.tokenizer import Tokenizer
from moembed.verify.probes import probe_ids, probe_texts

if TYPE_CHECKING:
    import onnx_ir as ir

    from moembed.quantize.recipe import Recipe
    from moembed.tokenizer.tokenizer import Ids

WIDEST = "int8-wide"  # the recipe that keeps most in float32
_NAMED = 3  # layers in an error
GRAPH = "onnx/model_int8.onnx"


def quantize(
    bundle: Bundle,
    out: Path,
    *,
    recipe: str = "int8",
    calibration: Sequence[str] | None = None,
    force: bool = False,
    log: Callable[[str], None] = lambda _text: None,
) -> Bundle:
    """Quantize an fp32 bundle.

    Args:
        bundle: an fp32 bundle; it is not changed.
        out: the folder to write; it appears complete or not at all.
        recipe: name of a recipe in `recipes/`.
        calibration: representative texts, which steer smoothing and rounding; None for the package's own probe texts. They get
            the model's prompts in turn and are cut to its limit; 16384 tokens are enough.
        force: replace `out` if it is a bundle already.
        log: receives progress messages.

    Returns:
        The bundle, opened.

    Raises:
        InputError: the bundle is not fp32, the recipe is unknown, there is no calibration text, or a width does not fit.
        OutputError: `out` exists and may not be replaced, or cannot be written.
        VerificationError: the result is too far from the fp32 bundle; nothing is left behind.
        MissingExtraError: a package of the extra `convert` is not installed.
    """
    from moembed.quantize.recipe import load_recipe

    settings = load_recipe(recipe)
    if bundle.manifest.recipe != UNQUANTIZED:
        raise InputError(f"{bundle.folder} has recipe {bundle.manifest.recipe}; only an fp32 bundle can be quantized")
    if calibration is not None and not calibration:
        raise InputError("calibration is empty: give at least one text, or None for the built-in texts")
    check_replaceable(out, force=force)
    need_packages("Quantizing a bundle")
    from moembed.verify.parity import graph_runner

    tokenizer, limit = Tokenizer(bundle), bundle.manifest.max_tokens
    texts = calibration_ids(tokenizer, bundle.manifest.prompts, limit, calibration)
    probes = probe_ids(tokenizer, limit)

    @cache  # a recipe that keeps layers measures them, and advice on it needs the same figures
    def measured() -> dict[str, float]:
        return measured_sensitivities(bundle.graph, settings, texts, probes)

    keep = most_sensitive(measured(), settings) if settings.keep else ()
    model = quantized(read_model(bundle.graph), settings, texts, keep=keep, log=log)
    with writing_bundle(out, GRAPH, log) as writer:
        writer.write_graph(model, {"recipe": recipe})
        del model
        writer.copy_interop_files(
            bundle.folder, [name for name in bundle.manifest.files if not name.startswith("onnx/")]
        )
        reference = Reference(kind="bundle", sha256=bundle.fingerprint, size=bundle.size)
        expected = graph_runner(bundle.graph)
        written = writer.certify(
            reference,
            "the fp32 bundle",
            expected,
            probes,
            settings.tolerance,
            source=bundle.manifest.source,
            prompts=bundle.manifest.prompts,
            near_ties=bundle.manifest.certificate.near_ties,
            advice=lambda: advice(measured(), recipe),
        )
        del expected
        writer.write_manifest(replace(bundle.manifest, recipe=recipe, **written))
    return Bundle.open(out)


def need_packages(purpose: str) -> None:
    """Make sure that models can be rewritten, before anything is downloaded or read.

    Args:
        purpose: beginning of the error's sentence.

    Raises:
        MissingExtraError: onnx, onnx-ir or ml_dtypes is not installed.
    """
    with extra("convert", purpose):
        import ml_dtypes  # noqa: F401
        import onnx  # noqa: F401
        import onnx_ir  # noqa: F401


def read_model(graph: Path) -> "ir.Model":
    """Read a bundle's graph; its weights are mapped when they are read."""
    import onnx
    import onnx_ir as ir

    content, folder = read_graph(graph)
    model = ir.serde.deserialize_model(onnx.ModelProto.FromString(content))
    ir.external_data.set_base_dir(model.graph, folder)
    return model


def calibration_ids(
    tokenizer: Tokenizer, prompts: Mapping[str, str], limit: int, texts: Sequence[str] | None = None
) -> list["Ids"]:
    """Return the token ids of calibration texts, each behind one of the prompts in turn, in the order of their names.

    Args:
        tokenizer: the model's.
        prompts: the model's prompts by name.
        limit: number of tokens that a text is cut to.
        texts: the texts, or None for the package's own probe texts.
    """
    in_turn = cycle([prompts[name] for name in sorted(prompts)] or [""])
    chosen = [prompt + text for prompt, text in zip(in_turn, texts or probe_texts(), strict=False)]
    return [ids[:limit] for ids in tokenizer.encode(chosen)]


def quantized(
    model: "ir.Model",
    recipe: "Recipe",
    texts: Sequence["Ids"],
    *,
    keep: Collection[str] = (),
    log: Callable[[str], None] = lambda _text: None,
) -> "ir.Model":
    """Quantize an fp32 model in memory, which is changed.

    Args:
        model: a model as `moembed.export.graph.finish` makes it.
        recipe: how to quantize it.
        texts: from `calibration_ids`.
        keep: weights of linear layers that stay float32.
        log: receives progress messages.

    Raises:
        InputError: a width does not fit the layout of INT8 weights, or there is no text.
    """
    from moembed.quantize.rewrite import Rewriter

    return Rewriter(model, recipe, texts, keep=keep, log=log).run()


def measured_sensitivities(
    graph: Path, recipe: "Recipe", texts: Sequence["Ids"], probes: list[list[int]]
) -> dict[str, float]:
    """Return what the quantized input of each linear layer outside the experts alone changes, by the name of its weight.

    Args:
        graph: an fp32 bundle's ONNX file.
        recipe: the recipe.
        texts: from `calibration_ids`.
        probes: token ids of the texts that the sensitivity is measured on.
    """
    from moembed.quantize.rewrite import Rewriter
    from moembed.quantize.sensitivity import sensitivities

    # Smoothing factors depend on the layers before, whose weights need no careful rounding for that.
    rewriter = Rewriter(read_model(graph), recipe, texts, compensate=False)
    rewriter.run()
    return sensitivities(graph, rewriter.factors, [np.array(ids, np.int32) for ids in probes])


def most_sensitive(measured: Mapping[str, float], recipe: "Recipe") -> list[str]:
    """Return the names of the weights that a recipe keeps in float32, from `measured_sensitivities`."""
    return _worst_first(measured)[: round(recipe.keep * len(measured))]


def advice(measured: Mapping[str, float], recipe: str) -> str:
    """Return what to do about a bundle that lost too much: its most sensitive layers, and the recipe that spares them."""
    layers = ", ".join(f"{name} ({measured[name]:.2g})" for name in _worst_first(measured)[:_NAMED])
    remedy = (
        "use the fp32 bundle" if recipe == WIDEST else f"use the recipe {WIDEST}, which spares them, or the fp32 bundle"
    )
    return f". No bundle is written. The layers that change the vectors most (1 - cosine of each alone): {layers}: {remedy}"


def _worst_first(measured: Mapping[str, float]) -> list[str]:
    return sorted(measured, key=lambda name: -measured[name])
