"""`quantize`: make an INT8 bundle of an fp32 bundle."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from moembed.bundle.bundle import Bundle
from moembed.bundle.certificate import Reference
from moembed.bundle.external_data import read_graph
from moembed.bundle.manifest import UNQUANTIZED
from moembed.errors import InputError
from moembed.export.pipeline import need_extras
from moembed.export.writer import check_replaceable, writing_bundle
from moembed.tokenizer.tokenizer import Tokenizer
from moembed.verify.probes import probe_ids, probe_texts

if TYPE_CHECKING:
    from moembed.quantize.recipe import Recipe
    from moembed.quantize.smoothing import Factors

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
        MissingExtraError: a package of the extra `export` is not installed.
    """
    from moembed.quantize.recipe import load_recipe

    settings = load_recipe(recipe)
    if bundle.manifest.recipe != UNQUANTIZED:
        raise InputError(f"{bundle.folder} has recipe {bundle.manifest.recipe}; only an fp32 bundle can be quantized")
    if calibration is not None and not calibration:
        raise InputError("calibration is empty: give at least one text, or None for the built-in texts")
    check_replaceable(out, force=force)
    need_extras("Quantizing a bundle")
    import onnx
    import onnx_ir as ir

    from moembed.quantize.calibrate import record_activations
    from moembed.quantize.rewrite import Rewriter
    from moembed.quantize.smoothing import smoothing_factors
    from moembed.verify.parity import graph_runner

    tokenizer, limit = Tokenizer(bundle), bundle.manifest.max_tokens
    prompts = cycle(bundle.manifest.prompts.values() or [""])
    texts = [prompt + text for prompt, text in zip(prompts, calibration or probe_texts(), strict=False)]
    log(f"recording activations over up to {len(texts)} texts")
    activations = record_activations(bundle.graph, [ids[:limit] for ids in tokenizer.encode(texts)])
    log("quantizing")
    content, folder = read_graph(bundle.graph)
    model = ir.serde.deserialize_model(onnx.ModelProto.FromString(content))
    ir.external_data.set_base_dir(model.graph, folder)
    factors = smoothing_factors(model, settings, activations)
    probes = probe_ids(tokenizer, limit)
    keep = _most_sensitive(bundle, settings, factors, probes)
    model = Rewriter(model, settings, activations, factors, keep).run()
    del activations
    with writing_bundle(out, GRAPH, log) as writer:
        writer.write_graph(model, {"recipe": recipe})
        del model
        writer.copy_interop_files(
            bundle.folder, [name for name in bundle.manifest.files if not name.startswith("onnx/")]
        )
        reference = Reference(kind="bundle", sha256=bundle.fingerprint, size=bundle.size)
        expected = graph_runner(bundle.graph)
        written = writer.certify(reference, "the fp32 bundle", expected, probes, settings.tolerance)
        del expected
        writer.write_manifest(replace(bundle.manifest, recipe=recipe, **written))
    return Bundle.open(out)


def _most_sensitive(bundle: Bundle, recipe: "Recipe", factors: "Factors", probes: list[list[int]]) -> list[str]:
    """Return the names of the weights that the recipe keeps in float32."""
    if not recipe.keep:
        return []
    from moembed.quantize.sensitivity import sensitivities

    measured = sensitivities(bundle.graph, factors, [np.array(ids, np.int32) for ids in probes])
    return sorted(measured, key=lambda name: -measured[name])[: round(recipe.keep * len(measured))]
