"""Conversion: the bundle that export and quantize give, without torch, the same bytes on every machine."""

import json
import os
import shutil
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from moembed.convert.conversion import convert
from moembed.errors import CheckpointError
from moembed.export.pipeline import export
from moembed.inference.kernels import PORTABLE, usable_kernels
from moembed.models.locate import locate
from moembed.quantize.pipeline import quantize
from support.checkpoints import small_config, write_checkpoint
from support.tiny_networks import tensors_of, write_tiny

GRAPH = ("onnx/model_int8.onnx", "onnx/model_int8.onnx_data")
# Converts the folder of the first argument to that of the second, and prints the digests and the modules of a kind.
SCRIPT = """
import sys
from pathlib import Path
from moembed.convert.conversion import convert
from moembed.models.locate import locate
bundle = convert(locate(sys.argv[1]), Path(sys.argv[2]), recipe=sys.argv[3])
print(bundle.fingerprint, *sorted({"torch", "onnxscript", "transformers"} & sys.modules.keys()))
"""


def _converted(checkpoint, out, template, *, recipe="int8", **variables):
    command = [sys.executable, "-c", SCRIPT, str(checkpoint), str(out), recipe]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(template)} | variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    "kernels",
    [
        name if name in (usable_kernels()[0], "plain") else pytest.param(name, marks=pytest.mark.long)
        for name in usable_kernels()
        if name != PORTABLE
    ],
)
def test_the_bytes_are_those_of_export_and_quantize_without_torch(kernels, checkpoint, int8, template, tmp_path):
    variables = {"MOEMBED_KERNELS": kernels, "OMP_NUM_THREADS": "1"}
    fingerprint, *modules = _converted(checkpoint, tmp_path / "out", template, **variables)
    assert fingerprint == int8.fingerprint
    assert modules == []
    manifest = json.loads((tmp_path / "out" / "moembed.json").read_text())
    assert manifest["made_with"].keys() == {"moembed", "numpy", "onnx", "onnx-ir", "onnxruntime"}
    files = manifest["files"]
    assert {name: files[name]["sha256"] for name in files} == {
        name: record.sha256 for name, record in int8.manifest.files.items()
    }


@pytest.mark.long
@pytest.mark.parametrize("recipe", ["int8-table4", "int8-wide"])
def test_other_recipes(recipe, tmp_path):
    raw = small_config(n_layer=2, n_embd=64)
    checkpoint = locate(write_checkpoint(tmp_path / "checkpoint", raw))
    expected = quantize(export(checkpoint, tmp_path / "fp32"), tmp_path / "int8", recipe=recipe)
    assert convert(checkpoint, tmp_path / "out", recipe=recipe).fingerprint == expected.fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "fp32", "int8", "out"]


@pytest.mark.parametrize(
    "dtype", [pytest.param(np.float16, marks=pytest.mark.long), ml_dtypes.bfloat16], ids=["F16", "BF16"]
)
def test_numbers_of_16_bits_are_widened_exactly(dtype, tmp_path):
    """N43: one tensor of each kind stays float32, among them a norm."""
    narrow = write_checkpoint(tmp_path / "narrow", small_config(n_layer=2, n_embd=64))
    tensors = load_file(narrow / "model.safetensors")
    narrowed = {
        name: array if name.startswith(("emb_ln", "encoder.layers.0.mlp.fc1")) else array.astype(dtype)
        for name, array in tensors.items()
    }
    save_file(narrowed, narrow / "model.safetensors", metadata={"format": "pt"})
    wide = shutil.copytree(narrow, tmp_path / "wide")
    save_file(
        {name: array.astype(np.float32) for name, array in narrowed.items()},
        wide / "model.safetensors",
        metadata={"format": "pt"},
    )
    a, b = (convert(locate(folder), tmp_path / name).manifest.files for folder, name in ((narrow, "a"), (wide, "b")))
    assert a[GRAPH[1]] == b[GRAPH[1]]


@pytest.mark.long
def test_shards(checkpoint, int8, template, tmp_path):
    sharded = shutil.copytree(checkpoint, tmp_path / "sharded")
    tensors = load_file(sharded / "model.safetensors")
    (sharded / "model.safetensors").unlink()
    parts = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    place = {name: parts[index % 2] for index, name in enumerate(tensors)}
    for part in parts:
        chosen = {name: array for name, array in tensors.items() if place[name] == part}
        save_file(chosen, sharded / part, metadata={"format": "pt"})
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": place}))
    _converted(sharded, tmp_path / "out", template)
    files = json.loads((tmp_path / "out" / "moembed.json").read_text())["files"]
    assert files[GRAPH[1]]["sha256"] == int8.manifest.files[GRAPH[1]].sha256


def test_weights_with_several_hard_links(tmp_path):
    """As caches and copies make them; onnx-ir refuses such a file."""
    folder = write_tiny(tmp_path / "checkpoint", "bert", intermediate_size=1088, tensors=_wide())
    os.link(folder / "model.safetensors", tmp_path / "another name")
    assert convert(locate(folder), tmp_path / "out").manifest.certificate.embedding_min_cosine > 0.99


def _wide():
    """Tensors of a network of which some are so large that they are mapped from the file."""
    tensors, rng = tensors_of("bert"), np.random.default_rng(0)
    for name, value in tensors.items():
        shape = tuple(1088 if size == 128 and "layer" in name else size for size in value.shape)
        if shape != value.shape:
            tensors[name] = (rng.standard_normal(shape) / 8).astype(np.float32)
    return tensors


def test_nan_is_refused(tmp_path):
    folder = write_checkpoint(tmp_path / "checkpoint", small_config(n_layer=2, n_embd=64))
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.layers.1.mlp.experts.mlp.w2"][200, 3] = np.nan
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"NaN or infinity in encoder\.layers\.1\.mlp\.experts\.mlp\.w2\.2: save"):
        convert(locate(folder), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.long
def test_an_expert_that_no_text_visits(tmp_path):
    """Its weights are rounded plainly."""
    folder = write_checkpoint(tmp_path / "checkpoint", small_config(n_layer=2, n_embd=64))
    tensors = load_file(folder / "model.safetensors")
    router = tensors["encoder.layers.1.mlp.router.layer.weight"]
    router[1] = router[0]  # a tie with expert 0, which wins it as the first; never the third of two
    router[2:] = 3 * router[2:]
    router[1] = -100 * np.abs(router).max() * np.sign(tensors["encoder.layers.1.norm1.bias"])
    save_file(tensors, folder / "model.safetensors")
    assert convert(locate(folder), tmp_path / "out").manifest.certificate.embedding_min_cosine > 0.99
