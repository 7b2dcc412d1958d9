"""Renewal of the built-in bundle from its own integers: the operators of this version, and the outputs that the recipe asks for.

The fp32 checkpoint that it was made from is not kept. So the certificate compares with the fp32 bundle of the values that the
integers stand for. The command writes that one to its work folder, and anybody can write it again:

    python -m moembed.train.release.renew --data EVALUATION_SETS --work build

Where the outputs are not whitened yet as the recipe asks, it needs training texts as well (`--texts`), and writes the integers of
the projection again.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from safetensors.numpy import save_file

from moembed.bundle.bundle import Bundle, read_manifest
from moembed.bundle.certificate import Reference
from moembed.bundle.manifest import MANIFEST_FILE, Manifest
from moembed.embedder import Embedder
from moembed.errors import InputError
from moembed.evaluation.certify import certify_sets
from moembed.export.functions import functions
from moembed.export.pipeline import export
from moembed.export.writer import write_graph, writing_bundle
from moembed.files.paths import replacing_folder
from moembed.models.locate import locate
from moembed.models.weights import WEIGHTS_FILE
from moembed.quantize.dequantize import dequantize
from moembed.quantize.functions import int8_functions
from moembed.quantize.fuse import finish
from moembed.quantize.layout import pack, quantize_rows, unpack
from moembed.quantize.piece import initializer_array
from moembed.quantize.pipeline import GRAPH, read_model
from moembed.quantize.recipe import load_recipe as load_quantization
from moembed.quantize.rewrite import integers_name, scale_name
from moembed.tokenizer.tokenizer import Tokenizer
from moembed.train.recipe import Recipe, load_recipe
from moembed.train.release import card
from moembed.train.release.ship import covariance_of
from moembed.train.release.whitening import BIAS, WEIGHT, is_whitened, whiten
from moembed.verify.parity import graph_runner
from moembed.verify.probes import probe_ids, probe_texts

Log = Callable[[str], None]

_SAME = 1e-5  # largest difference of a distance to the fp32 reference that sums in another order explain


def renew(
    bundle: Bundle, recipe: Recipe, *, data: Path, work: Path, card_dir: Path, log: Log, texts: Sequence[Path] = ()
) -> Bundle:
    """Write the bundle and the figures of its card again; both are replaced when everything has succeeded.

    Figures are kept where a run was interrupted and gives the same files again, and where the vectors keep their bytes.

    Args:
        bundle: an INT8 bundle with a certificate on evaluation sets, which are measured again.
        recipe: that it was trained by.
        data: folder of the evaluation sets.
        work: folder for intermediate results.
        card_dir: folder of the card.
        log: called with progress.
        texts: training texts; needed if the outputs are not whitened yet.

    Returns:
        The new bundle in its place.

    Raises:
        InputError: a set or the texts are missing, or the recipe does not fit the bundle.
        OutputError: a file cannot be written.
        VerificationError: the new graph is too far from the fp32 bundle.
    """
    name, out = bundle.manifest.name, work / f"{bundle.manifest.name}-int8"
    before = read_manifest(out) if (out / MANIFEST_FILE).exists() else None
    integers = _whitened(bundle, recipe, texts, work / f"{name}-whitened", log)
    fp32 = _fp32_bundle(bundle, integers, work / name, work / f"{name}-fp32", log)
    int8 = _int8_bundle(bundle, integers, fp32, out, log)
    if before and before.files == int8.manifest.files:  # a run that was interrupted
        int8 = _with_figures(int8, before)
    elif _computes_the_same(int8, bundle):
        int8 = _with_figures(int8, bundle.manifest)
    sets = bundle.manifest.certificate.quality.keys() - int8.manifest.certificate.quality.keys()
    certify_sets(sorted(sets), data, Embedder(int8), Embedder(fp32), log=log)
    card.renew_quality(card_dir, Bundle.open(int8.folder))
    with replacing_folder(bundle.folder) as partial:
        shutil.copytree(int8.folder, partial, dirs_exist_ok=True)
    return Bundle.open(bundle.folder)


def _with_figures(bundle: Bundle, known: Manifest) -> Bundle:
    """Write the quality of a manifest into that of a bundle with the same vectors."""
    certificate = replace(bundle.manifest.certificate, quality=known.certificate.quality)
    (bundle.folder / MANIFEST_FILE).write_text(replace(bundle.manifest, certificate=certificate).to_json(), "utf-8")
    return Bundle.open(bundle.folder)


def _computes_the_same(bundle: Bundle, known: Bundle) -> bool:
    """Check whether both bundles have the same bytes for the probe texts, and the same distance to their fp32 reference.

    Graphs may differ, also those of the references. Another processor adds float32 values in another order.
    """
    if any(abs(own - other) > _SAME for own, other in zip(_distances(bundle), _distances(known), strict=True)):
        return False
    vectors = [Embedder(one).encode(probe_texts(), prompt="", overlong="truncate_start") for one in (bundle, known)]
    return vectors[0].tobytes() == vectors[1].tobytes()


def _distances(bundle: Bundle) -> tuple[float, float, float]:
    found = bundle.manifest.certificate
    return found.embedding_mean_cosine, found.embedding_min_cosine, found.embedding_max_abs


def _whitened(bundle: Bundle, recipe: Recipe, texts: Sequence[Path], out: Path, log: Log) -> Path:
    """Return a folder with `config.json` and the graph of the bundle with whitened outputs: its own, or one made in `out`."""
    projection = recipe.projection
    if not (projection.zeroed_outputs or projection.whitening):
        return bundle.folder
    model = read_model(bundle.graph)
    names = (integers_name(WEIGHT), scale_name(WEIGHT), BIAS)
    if any(name not in model.graph.initializers for name in names):
        raise InputError(f"the recipe has zeroed_outputs, but {bundle.folder} has no {WEIGHT}: correct the recipe")
    stored: list[NDArray[Any]] = [initializer_array(model.graph.initializers[name]).copy() for name in names]
    integers, scales, bias = stored
    weight = np.asarray(unpack(integers) * scales[:, None], np.float32)
    if is_whitened(weight, bias, projection):
        return bundle.folder
    if not texts:
        raise InputError(
            f"the outputs of {bundle.folder} are not whitened yet: pass training texts with --texts, which show their covariance"
        )
    log(f"moembed: whitening the outputs of {bundle.folder}")
    weight, bias = whiten(weight, bias, projection, covariance_of(bundle, texts, recipe))
    integers, scales = quantize_rows(weight)
    arrays: list[NDArray[Any]] = [pack(integers), scales, bias]
    for name, array in zip(names, arrays, strict=True):
        model.graph.initializers[name].const_value = ir.tensor(array, name=name)
    with replacing_folder(out) as partial:
        shutil.copyfile(bundle.folder / "config.json", partial / "config.json")
        write_graph(model, partial / GRAPH, {})
    return out


def _fp32_bundle(bundle: Bundle, integers: Path, checkpoint: Path, out: Path, log: Log) -> Bundle:
    """Write the values of the integers as a checkpoint in float32, and export it."""
    parameters = dequantize(integers)
    with replacing_folder(checkpoint) as partial:
        for file in bundle.manifest.files:
            if not file.startswith("onnx/"):
                (partial / file).parent.mkdir(exist_ok=True)
                shutil.copyfile(bundle.folder / file, partial / file)
        config = json.loads((partial / "config.json").read_text("utf-8")) | {"torch_dtype": "float32"}
        (partial / "config.json").write_text(json.dumps(config, indent=2), "utf-8")
        save_file(parameters, partial / WEIGHTS_FILE, metadata={"format": "pt"})
    return export(locate(checkpoint), out, force=True, log=log)


def _int8_bundle(bundle: Bundle, integers: Path, fp32: Bundle, out: Path, log: Log) -> Bundle:
    """Write the graph of the integers with this version's operators, and compare it with the fp32 bundle."""
    manifest, settings = bundle.manifest, load_quantization(bundle.manifest.recipe)
    model = read_model(integers / GRAPH)
    bodies = [*functions(manifest.num_experts), *int8_functions(manifest.num_experts)]
    finish(model, bodies, integer_attention=settings.attention == "integer")
    with writing_bundle(out, GRAPH, log) as writer:
        writer.write_graph(model, {"recipe": manifest.recipe})
        del model
        writer.copy_interop_files(bundle.folder, [name for name in manifest.files if not name.startswith("onnx/")])
        written = writer.certify(
            Reference(kind="bundle", sha256=fp32.fingerprint, size=fp32.size),
            "the fp32 bundle",
            graph_runner(fp32.graph),
            probe_ids(Tokenizer(bundle), manifest.max_tokens),
            settings.tolerance,
            source=manifest.source,
            prompts=manifest.prompts,
        )
        writer.write_manifest(replace(manifest, **written))
    return Bundle.open(out)


def _log(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def main() -> None:
    """Renew a bundle from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="ROOT", help="folder of the evaluation sets")
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="folder for intermediate results")
    parser.add_argument(
        "--texts", type=Path, nargs="+", default=[], metavar="FILE", help="JSONL files of training texts"
    )
    parser.add_argument("--bundle", type=Path, default=Path("runtime/default"), help="(default: %(default)s)")
    parser.add_argument("--recipe", default="default", help="that it was trained by (default: %(default)s)")
    parser.add_argument("--card", type=Path, default=Path("models"), help="folder of the card (default: %(default)s)")
    chosen = parser.parse_args()
    renewed = renew(
        Bundle.open(chosen.bundle),
        load_recipe(chosen.recipe),
        data=chosen.data,
        work=chosen.work,
        card_dir=chosen.card,
        log=_log,
        texts=chosen.texts,
    )
    _log(f"{renewed.manifest.name}, {renewed.manifest.recipe}, {renewed.size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
