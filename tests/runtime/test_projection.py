"""Models with a projection, from checkpoint to INT8 bundle (the published model has none)."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch.nn import functional

from moembed import Embedder
from moembed.cli import main
from moembed.errors import CheckpointError
from moembed.export.pipeline import export
from moembed.inference.kernels import PORTABLE, VARIABLE, usable_kernels
from moembed.models.checkpoint import load_network
from moembed.models.locate import locate
from moembed.models.oracle import Oracle
from moembed.quantize.pipeline import quantize
from moembed.train.convert import student
from moembed.verify.parity import compare, network_runner, oracle_runner
from moembed.verify.stability import check_stability
from support.checkpoints import small_config, write_checkpoint
from support.tolerances import INT8_SMALL_MIN_COSINE, KERNEL_MIN_COSINE, REFERENCE

TEXTS = ["a", "Bread is baked from flour.", "über " * 60]


@pytest.fixture(scope="module")
def bundles(projected_bundles):
    return {name: projected_bundles(name) for name in ("fp32", "int8", "int8-wide")}


@pytest.fixture
def changed(projected, tmp_path):
    """Writes a copy of the checkpoint with other tensors or another configuration."""

    def write(tensors, **config):
        folder = write_checkpoint(tmp_path / "changed", small_config(n_embd=64, n_layer=2, **config), seed=5)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return write


def test_torch_agrees_with_the_oracle(projected):
    oracle = Oracle(projected)
    texts = [[0, 5, 17, 300, 4711, 9, 2], [0, 2], [0, *range(100, 160), 2]]
    report = compare("numpy", oracle_runner(oracle), network_runner(load_network(projected)), texts, REFERENCE)
    oracle.close()
    assert report.passed, report.problems


def test_training_sees_the_same_vectors(projected):
    network = load_network(projected)
    ids = torch.randint(4, 40_000, (3, 17), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        states, _ = student.encode(network, ids)
        embeddings, _ = network(ids, torch.ones_like(ids))
        found = functional.normalize(student.project(network, states[-1].mean(1)), dim=-1)
    torch.testing.assert_close(found, embeddings, rtol=1e-4, atol=1e-5)


def test_a_projection_is_not_left_out(projected, bundles, changed, tmp_path):
    """Its product with the vectors of the model without it, up to their length."""
    tensors = load_file(projected / "model.safetensors")
    weight, bias = tensors.pop("projection.weight"), tensors.pop("projection.bias")
    plain = export(locate(changed(tensors)), tmp_path / "plain")
    means = Embedder(plain).encode(TEXTS, prompt="", normalize_embeddings=False).astype(np.float64)
    found = Embedder(bundles["fp32"]).encode(TEXTS, prompt="").astype(np.float64)
    # The bias is added to a mean, whose length the normalized vector has lost: found is on the plane of the two.
    for mean, vector in zip(means, found, strict=True):
        sides = np.stack([weight @ mean, bias], axis=1)
        rest = vector - sides @ np.linalg.lstsq(sides, vector, rcond=None)[0]
        assert np.linalg.norm(rest) < 1e-5
        assert abs(vector @ mean) / np.linalg.norm(mean) < 0.9


@pytest.mark.parametrize("kind", ["fp32", "int8", "int8-wide"])
def test_bundles_keep_their_promises(projected, bundles, kind):
    bundle = bundles[kind]
    assert check_stability(bundle).passed
    origin = projected if kind == "fp32" else bundles["fp32"].folder
    assert main(["verify", str(bundle.folder), "--against", str(origin)]) == 0
    found, expected = (Embedder(one).encode(TEXTS, prompt="") for one in (bundle, bundles["fp32"]))
    assert (found * expected).sum(axis=1).min() >= INT8_SMALL_MIN_COSINE


def test_kernels_agree(bundles, monkeypatch):
    vectors = {}
    for name in usable_kernels():
        monkeypatch.setenv(VARIABLE, name)
        vectors[name] = Embedder(bundles["int8"]).encode(TEXTS, prompt="")
    portable = vectors.pop(PORTABLE)
    assert len({found.tobytes() for found in vectors.values()}) <= 1
    assert all((found * portable).sum(axis=1).min() >= KERNEL_MIN_COSINE for found in vectors.values())


def test_a_bias_of_zeros_is_quantized(projected, changed, tmp_path):
    """The exporter would drop such a bias if it saw it."""
    tensors = load_file(projected / "model.safetensors")
    for name in ("projection.bias", "encoder.layers.0.mlp.fc1.bias", "encoder.layers.0.mlp.fc2.bias"):
        tensors[name][:] = 0
    folder = changed(tensors, projection=True)
    full = export(locate(folder), tmp_path / "fp32")
    int8 = quantize(full, tmp_path / "int8")
    found, expected = (Embedder(one).encode(TEXTS, prompt="") for one in (int8, full))
    assert (found * expected).sum(axis=1).min() >= INT8_SMALL_MIN_COSINE


@pytest.mark.parametrize(
    ("config", "dropped", "said"),
    [
        ({"projection": True}, "projection.bias", "missing: projection.bias"),
        ({}, None, "unexpected: projection.bias, projection.weight"),
        ({"projection": True}, "norm", "expected .* found"),
    ],
)
def test_a_projection_that_the_configuration_does_not_describe(projected, changed, config, dropped, said):
    tensors = load_file(projected / "model.safetensors")
    if dropped == "norm":
        tensors["projection.weight"] = tensors["projection.weight"][:40].copy()
    elif dropped:
        del tensors[dropped]
    with pytest.raises(CheckpointError, match=said):
        load_network(changed(tensors, **config))


@pytest.mark.parametrize("value", [1, "yes"])
def test_whether_there_is_one_is_true_or_false(projected, value, tmp_path):
    raw = json.loads((projected / "config.json").read_text()) | {"projection": value}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match="projection = .*; expected true or false"):
        load_network(tmp_path)
