"""Replacement of the built-in model by a trained checkpoint (`moembed ship`).

Export, quantization, evaluation into the certificate and the model card run in a work folder. The bundle is replaced when all of
them have succeeded and it is small enough for a wheel.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from moembed.bundle.bundle import Bundle
from moembed.embedder import Embedder
from moembed.errors import InputError, MoembedError, OutputError, extra
from moembed.export.pipeline import export
from moembed.files.paths import replacing_folder
from moembed.models.locate import locate
from moembed.quantize.calibrate import MAX_TOKENS
from moembed.quantize.pipeline import quantize
from moembed.train.data import corpus
from moembed.train.recipe import Prompts, Recipe
from moembed.train.release import card
from moembed.train.release.whitening import checkpoint_is_whitened, output_covariance, whiten_checkpoint

MAX_BYTES = 40_000_000  # of the bundle, tokenizer included
COVARIANCE_TOKENS = 200_000  # of the texts that the covariance of the outputs is estimated from


def ship(
    checkpoint: Path,
    texts: Sequence[Path],
    *,
    data: Path,
    sets: Sequence[str],
    quantization: str,
    work: Path,
    bundle: Path,
    card_dir: Path,
    log: Callable[[str], None],
) -> Bundle:
    """Build the bundle and its card, and put them in place.

    Args:
        checkpoint: a checkpoint of `moembed train`; its recipe names the model.
        texts: training texts; samples of them calibrate the INT8 bundle, even out the outputs, and show the loads of experts.
        data: folder of the evaluation sets.
        sets: names of the evaluation sets.
        quantization: recipe of `moembed quantize`.
        work: folder for intermediate results, which are overwritten.
        bundle: destination of the INT8 bundle; an older one is replaced.
        card_dir: folder of the card.
        log: called with progress.

    Returns:
        The bundle in its place, opened.

    Raises:
        InputError: the checkpoint has no training report, a step failed, or the bundle is too large; nothing was replaced.
        OutputError: a file cannot be written.
        MissingExtraError: a package of the extra `eval` is not installed.
    """
    with extra("eval", "Shipping a model"):  # now, not after hours of work
        import matplotlib  # noqa: F401

        from moembed.evaluation.certify import certify_sets
    recipe = card.read_report(checkpoint).recipe
    try:
        named, fp32, int8 = _build(checkpoint, texts, recipe, quantization, work, log)
        certify_sets(sets, data, Embedder(int8), Embedder(fp32), log=log)
    except MoembedError as error:
        raise InputError(f"{error}: nothing was replaced") from error
    card.write_card(int8.folder, named, texts, card_dir, texts=card.TEXTS_PER_LANGUAGE)
    with replacing_folder(bundle) as partial:
        shutil.copytree(int8.folder, partial, dirs_exist_ok=True)
    return Bundle.open(bundle)


def _build(
    checkpoint: Path, texts: Sequence[Path], recipe: Recipe, quantization: str, work: Path, log: Callable[[str], None]
) -> tuple[Path, Bundle, Bundle]:
    """Return the released checkpoint, its fp32 bundle and its INT8 bundle (fit for a wheel), made in the work folder."""
    named = work / recipe.name
    try:
        shutil.copytree(checkpoint, named, dirs_exist_ok=True)  # a bundle has the name of its checkpoint's folder
    except OSError as error:
        raise OutputError(f"cannot copy {checkpoint} to {named}: {error}") from error
    fp32 = export(locate(named), work / f"{recipe.name}-fp32", force=True, log=log)
    if not checkpoint_is_whitened(named, recipe.projection):
        whiten_checkpoint(named, recipe.projection, covariance_of(fp32, texts, recipe))
        fp32 = export(locate(named), work / f"{recipe.name}-fp32", force=True, log=log)
    sampled = _sample(named, texts, recipe, Prompts(query="", passage=""), MAX_TOKENS)
    calibration = [
        " ".join(encoded.text.split()) for encoded in sampled
    ]  # on one line each, as the texts of `quantize`
    out = work / f"{recipe.name}-int8"
    int8 = quantize(fp32, out, recipe=quantization, calibration=calibration, force=True, log=log)
    if int8.size > MAX_BYTES:
        raise InputError(f"{out} has {int8.size:,} bytes, more than the {MAX_BYTES:,} for a wheel")
    return named, fp32, int8


def covariance_of(bundle: Bundle, texts: Sequence[Path], recipe: Recipe) -> NDArray[np.float64]:
    """Return the covariance `[hidden, hidden]` of a bundle's outputs on a sample of its training texts.

    Raises:
        InputError: a file cannot be read, or holds no training texts.
    """
    embedder = Embedder(bundle)
    sampled = _sample(bundle.folder, texts, recipe, recipe.prompts, COVARIANCE_TOKENS)
    return output_covariance(embedder, [text for text, ids in sampled if len(ids) <= embedder.max_tokens])


def _sample(folder: Path, texts: Sequence[Path], recipe: Recipe, prompts: Prompts, tokens: int) -> list[corpus.Encoded]:
    """Sample training texts in the same way as training samples them, for the tokenizer of a folder."""
    train, _ = corpus.read_texts(texts, prompts, recipe.data.validation_share)
    return corpus.sample(
        train,
        Tokenizer.from_file(str(folder / "tokenizer.json")),
        tokens=tokens,
        alpha=recipe.data.language_alpha,
        weights=recipe.data.language_weights,
        seed=recipe.seed,
    )
