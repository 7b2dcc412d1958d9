"""Whitening of the projection's outputs for a release, and its constant outputs set to 0.

A constant output moves every cosine toward 1 and takes most of the range of integer codes, but tells no two texts apart. Without
it, cosines depend on the few directions in which texts differ the most, so these are shrunk: with the covariance C of the outputs
of training texts, the projection is multiplied by C^(-whitening/2). That matrix is symmetric, so an output keeps its place, and
the widths that embeddings are truncated to keep their meaning.
"""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from moembed.embedder import Embedder
from moembed.errors import InputError
from moembed.models.roles import Kind
from moembed.models.weights import WEIGHTS_FILE
from moembed.train.recipe import RECIPE_FILE, ProjectionRecipe

WEIGHT, BIAS = Kind.PROJECTION.value, Kind.PROJECTION_BIAS.value
_TEXTS = 256  # whose token states are in memory at a time
_SMALLEST = 0.003  # of the mean variance: directions with less are not stretched as if they told texts apart

Floats = NDArray[np.float32]
Parameters = dict[str, NDArray[Any]]


def output_covariance(embedder: Embedder, texts: Sequence[str]) -> NDArray[np.float64]:
    """Return the covariance `[hidden, hidden]` of a model's outputs, pooled and not normalized.

    Args:
        embedder: the model.
        texts: prompts included, each within the limit of the model.
    """
    pooled = [
        states.mean(axis=0, dtype=np.float64)
        for start in range(0, len(texts), _TEXTS)
        for states in embedder.token_embeddings(texts[start : start + _TEXTS], prompt="")
    ]
    covariance: NDArray[np.float64] = np.cov(np.stack(pooled), rowvar=False)
    return covariance


def whiten(
    weight: Floats, bias: Floats, recipe: ProjectionRecipe, covariance: NDArray[np.float64]
) -> tuple[Floats, Floats]:
    """Return a projection with the recipe's zeroed outputs, and the others whitened.

    Args:
        weight: `[hidden, inputs]` float32.
        bias: `[hidden]` float32.
        recipe: its `zeroed_outputs` and `whitening`.
        covariance: of the outputs, `[hidden, hidden]`; their mean variance stays.

    Raises:
        InputError: the recipe zeroes an output that the projection does not have.
    """
    _check_outputs(weight, recipe)
    kept = np.setdiff1d(np.arange(len(weight)), recipe.zeroed_outputs)
    spread, directions = np.linalg.eigh(covariance[np.ix_(kept, kept)])
    spread = np.maximum(spread, _SMALLEST * spread.mean())
    factors = spread ** (-recipe.whitening / 2)
    factors *= np.sqrt(spread.sum() / (spread * factors**2).sum())
    matrix = np.zeros((len(weight), len(weight)))
    matrix[np.ix_(kept, kept)] = (directions * factors) @ directions.T
    return (matrix @ weight).astype(np.float32), (matrix @ bias).astype(np.float32)


def is_whitened(weight: NDArray[Any], bias: NDArray[Any], recipe: ProjectionRecipe) -> bool:
    """Check whether a projection needs nothing: its zeroed outputs are 0, or the recipe asks for none.

    Raises:
        InputError: the recipe whitens without a zeroed output, by which a whitened projection is recognized, or zeroes an output
            that the projection does not have.
    """
    if recipe.whitening and not recipe.zeroed_outputs:
        raise InputError("the recipe has whitening without zeroed_outputs: correct the recipe")
    _check_outputs(weight, recipe)
    zeroed = list(recipe.zeroed_outputs)
    return not (weight[zeroed].any() or bias[zeroed].any())


def whiten_checkpoint(folder: Path, recipe: ProjectionRecipe, covariance: NDArray[np.float64]) -> None:
    """Apply `whiten` to a checkpoint, and write the new digest of its weights to its `recipe.json`.

    Args:
        folder: of a checkpoint with a projection.
        recipe: see `whiten`.
        covariance: of the checkpoint's outputs.

    Raises:
        InputError: see `whiten`.
    """
    path, report = folder / WEIGHTS_FILE, folder / RECIPE_FILE
    parameters: Parameters = load_file(path)
    weight, bias = projection_of(parameters, recipe)
    whitened = whiten(weight.astype(np.float32), bias.astype(np.float32), recipe, covariance)
    parameters[WEIGHT], parameters[BIAS] = (
        np.ascontiguousarray(new.astype(old.dtype)) for new, old in zip(whitened, (weight, bias), strict=True)
    )
    save_file(parameters, path, metadata={"format": "pt"})
    made = json.loads(report.read_text("utf-8")) | {"sha256": sha256(path.read_bytes()).hexdigest()}
    report.write_text(json.dumps(made, ensure_ascii=False, indent=2), "utf-8")


def checkpoint_is_whitened(folder: Path, recipe: ProjectionRecipe) -> bool:
    """Check whether a checkpoint's projection needs nothing; see `is_whitened`.

    Raises:
        InputError: see `is_whitened`.
    """
    if not (recipe.zeroed_outputs or recipe.whitening):
        return True
    return is_whitened(*projection_of(load_file(folder / WEIGHTS_FILE), recipe), recipe)


def projection_of(parameters: Parameters, recipe: ProjectionRecipe) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return weight and bias of the projection.

    Raises:
        InputError: there is none.
    """
    if WEIGHT not in parameters or BIAS not in parameters:
        raise InputError(
            f"the recipe has zeroed_outputs = {list(recipe.zeroed_outputs)}, but the model has no {WEIGHT}: correct the recipe"
        )
    return parameters[WEIGHT], parameters[BIAS]


def _check_outputs(weight: NDArray[Any], recipe: ProjectionRecipe) -> None:
    if wrong := [output for output in recipe.zeroed_outputs if not 0 <= output < len(weight)]:
        raise InputError(
            f"the recipe's zeroed_outputs has {wrong[0]}, but {WEIGHT} has {len(weight)} outputs: correct the recipe"
        )
