"""Conversion in an environment of the extra `convert` alone, where torch is not installed."""

import json
import os
import subprocess

import numpy as np
import pytest

from support.checkpoints import SMALL
from support.environments import environment
from support.pulls import Place
from support.sites import make_site


@pytest.mark.long
def test_a_checkpoint_is_embedded_without_torch(request, checkpoint, template, tmp_path):
    """Its network has a template, as that of a known model has."""
    python = environment("convert", request.config.cache.mkdir("environments"))
    paths = [make_site(tmp_path / "site", ()), template]
    place = Place(tmp_path / "home", more={"PYTHONPATH": os.pathsep.join(map(str, paths))})

    def run(*arguments):
        command = [python, *map(str, arguments)]
        return subprocess.run(command, env=place.environment, capture_output=True, encoding="utf-8", timeout=300)

    assert "No module named 'torch'" in run("-c", "import torch").stderr
    embedded = run("-m", "moembed", "embed", "-m", checkpoint, "hello")
    assert embedded.returncode == 0, embedded.stderr
    vector = json.loads(embedded.stdout)["embedding"]
    assert len(vector) == SMALL["n_embd"]
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    (manifest,) = place.data.rglob("moembed.json")
    made_with = json.loads(manifest.read_text("utf-8"))["made_with"]
    assert made_with.keys() == {"moembed", "numpy", "onnx", "onnx-ir", "onnxruntime"}
