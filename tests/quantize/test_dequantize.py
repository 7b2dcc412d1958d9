"""The parameters that an INT8 bundle stands for, against those that it was made from."""

import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from moembed.errors import CheckpointError
from moembed.quantize.dequantize import dequantize
from moembed.quantize.pipeline import GRAPH
from moembed.quantize.recipe import load_recipe, recipe_names

# Largest relative error of a tensor: int8 with a scale per row, and 4 bits with a scale per block.
_INT8, _INT4 = 0.02, 0.11


@pytest.fixture(scope="module")
def made(projected, projected_bundles):
    """A checkpoint with a projection, and its bundles by recipe."""
    return load_file(projected / "model.safetensors"), {name: projected_bundles(name) for name in recipe_names()}


@pytest.mark.parametrize("recipe", recipe_names())
def test_what_rounding_lost_is_all_that_is_lost(made, recipe):
    tensors, bundles = made
    parameters = dequantize(bundles[recipe].folder)
    assert parameters.keys() == tensors.keys()
    exact = 0
    for name, tensor in tensors.items():
        assert parameters[name].shape == tensor.shape
        assert parameters[name].dtype == np.float32
        assert parameters[name].flags.c_contiguous, "safetensors would write another order"
        bound = _INT4 if load_recipe(recipe).table == 4 and "word_embeddings" in name else _INT8
        error = np.linalg.norm(parameters[name] - tensor) / np.linalg.norm(tensor)
        assert error <= bound, name
        exact += error == 0
    quantized = sum(".weight" in name and tensors[name].ndim == 2 for name in tensors)
    assert exact > len(tensors) - quantized - 4, "norms, biases, routers and token types are stored as they are"


def test_a_damaged_bundle_is_refused(made, tmp_path):
    folder = shutil.copytree(made[1]["int8"].folder, tmp_path / "copy")
    (folder / GRAPH).write_bytes(b"no graph")
    with pytest.raises(CheckpointError, match="as the graph of an INT8 bundle .*: copy or quantize the bundle again"):
        dequantize(folder)
