"""`quantize`: an fp32 bundle becomes an INT8 bundle, compared with it before it is published."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from moembed.bundle.bundle import Bundle
from moembed.bundle.certificate import Reference
from moembed.bundle.external_data import read_graph
from moembed.errors import InputError
from moembed.export.pipeline import need_extras
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
from moembed.tokenizer.native import VOCABULARY_FILE
from moembed.tokenizer.tokenizer import Tokenizer
from moembed.verify.probes import probe_ids, probe_texts
from moembed.verify.tolerances import TOLERANCES

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
        calibration: texts that show what the model's products read, which steers outlier migration and rounding; None for the
            package's own probes. They get the model's prompts in turn and are cut to its limit; 16384 tokens are enough.
        force: replace `out` if it is a bundle already.
        log: told what is being done.

    Returns:
        The bundle, opened.

    Raises:
        InputError: the bundle is not fp32, the recipe is unknown, there is no calibration text, or a width does not fit.
        OutputError: `out` exists and may not be replaced, or cannot be written.
        VerificationError: the result is too far from the fp32 bundle; nothing is left behind.
        MissingExtraError: a package of the extra `export` is not installed.
    """
    from moembed.quantize.recipe import load_recipe

    chosen = load_recipe(recipe)
    if bundle.manifest.recipe != "fp32":
        raise InputError(f"{bundle.folder} has recipe {bundle.manifest.recipe}; only an fp32 bundle can be quantized")
    if calibration is not None and not calibration:
        raise InputError("no calibration text; give some, or none at all for the built-in ones")
    check_replaceable(out, force=force)
    need_extras()
    import onnx
    import onnx_ir as ir

    from moembed.quantize.calibrate import observed
    from moembed.quantize.rewrite import Rewriter
    from moembed.quantize.smoothing import factors_of
    from moembed.verify.parity import compare, observe_graph

    tokenizer = Tokenizer(bundle)
    prompts = cycle(bundle.manifest.prompts.values() or [""])
    texts = [prompt + text for prompt, text in zip(prompts, calibration or probe_texts(), strict=False)]
    log(f"watching the model read up to {len(texts)} texts")
    limit = bundle.manifest.max_tokens
    probes = probe_ids(tokenizer, limit)
    values = observed(bundle.graph, [ids[:limit] for ids in tokenizer.encode(texts)])
    log("quantizing")
    content, folder = read_graph(bundle.graph)
    model = ir.serde.deserialize_model(onnx.ModelProto.FromString(content))
    ir.external_data.set_base_dir(model.graph, folder)
    factors = factors_of(model, chosen, values)
    keep = _most_sensitive(bundle, chosen, factors, probes)
    model = Rewriter(model, chosen, values, factors, keep).run()
    del values
    with replacing_folder(out) as partial:
        log(f"writing {out}")
        write_graph(model, partial / GRAPH, {"recipe": chosen.name})
        del model
        for name in bundle.manifest.files:
            if not name.startswith("onnx/"):
                (partial / name).parent.mkdir(exist_ok=True)
                copy_companion(bundle.folder / name, partial / name, name=name)
        if VOCABULARY_FILE not in bundle.manifest.files:
            write_vocabulary(partial)
        log("comparing with the fp32 bundle")
        expected, found = observe_graph(bundle.graph), observe_graph(partial / GRAPH)
        report = compare("the fp32 bundle", expected, found, probes, TOLERANCES[chosen.name])
        del expected, found
        files = file_records(partial)
        reference = Reference(kind="bundle", sha256=bundle.fingerprint, size=bundle.size)
        manifest = replace(
            bundle.manifest,
            recipe=chosen.name,
            graph=GRAPH,
            made_with=writer_versions(),
            certificate=certificate_of(report, reference, files),
            files=files,
        )
        write_manifest(partial, manifest, log)
    return Bundle.open(out)


def _most_sensitive(bundle: Bundle, recipe: "Recipe", factors: "Factors", probes: list[list[int]]) -> list[str]:
    """Weights of the linear layers that the recipe keeps in float32."""
    if not recipe.keep:
        return []
    from moembed.quantize.sensitivity import sensitivities

    measured = sensitivities(bundle.graph, factors, [np.array(ids, np.int32) for ids in probes])
    return sorted(measured, key=lambda name: -measured[name])[: round(recipe.keep * len(measured))]
