"""Other tools open bundles and compute moembed's vectors, each in an environment of its own; docs/interop.md shows how.

The tools do not register the native library. ONNX Runtime then runs the functions that the graph contains, so the closest
reference is moembed with `MOEMBED_KERNELS=portable`.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from moembed import Embedder
from moembed.bundle.bundle import Bundle
from moembed.errors import TruncationWarning
from moembed.export.pipeline import export
from moembed.inference.cpu import saturates
from moembed.inference.kernels import PORTABLE, VARIABLE
from moembed.models.locate import locate
from moembed.models.pooling import Pooling
from moembed.pull.opening import DEFAULT_FOLDER
from support.environments import environment
from support.folders import DATA, TESTS
from support.tiny_networks import write_tiny
from support.tolerances import INTEROP_KERNELS_MAX_ABS, INTEROP_MAX_ABS, INTEROP_SATURATED_MAX_ABS

pytestmark = pytest.mark.interop
FOLDER = TESTS / "interop"
FIRST_TOKEN = "fp32, first token"
# Extra of pyproject.toml -> program that embeds with its tool.
TOOLS = {
    "optimum": "with_optimum",
    "sentence-transformers-onnx": "with_sentence_transformers",
    "fastembed": "with_fastembed",
}
QUERIES = [
    *(DATA / "sentences.txt").read_text("utf-8").splitlines()[::9],
    "",
    "embeddings of one text longer than the model reads " * 120,
]


class Tool(NamedTuple):
    extra: str
    python: Path

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run the tool's Python without network access to model hubs."""
        offline = os.environ | {"HF_HUB_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1"}
        command = [self.python, "-E", *arguments]
        return subprocess.run(command, env=offline, capture_output=True, encoding="utf-8", errors="replace")


class Reference(NamedTuple):
    bundle: Bundle
    kernels: str
    by_kernels: np.ndarray
    by_functions: np.ndarray


@pytest.fixture(scope="session", params=TOOLS)
def tool(request) -> Tool:
    return Tool(request.param, environment(request.param, request.config.cache.mkdir("interop")))


@pytest.fixture(scope="session", params=["fp32", "int8", FIRST_TOKEN])
def precision(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def first_token(tmp_path_factory) -> Bundle:
    """A small network that takes the first token's state, of a type that every release of transformers knows."""
    folder = tmp_path_factory.mktemp("first token")
    checkpoint = write_tiny(folder / "checkpoint", "xlm_roberta", pooling=Pooling.FIRST)
    # fastembed needs the name of the pad token, which every published file has.
    (checkpoint / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]", "model_max_length": 32}))
    return Bundle.open(export(locate(checkpoint), folder / "first-token").folder)


@pytest.fixture(scope="session")
def reference(precision, bundle, first_token) -> Reference:
    """moembed's own vectors of a small fp32 bundle, of the built-in INT8 bundle, or of one with another pooling (M04)."""
    opened = {"fp32": bundle, "int8": None, FIRST_TOKEN: first_token}[precision] or Bundle.open(DEFAULT_FOLDER)
    model = Embedder(opened)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, PORTABLE)
        portable = Embedder(opened)
    with pytest.warns(TruncationWarning):
        vectors = [embedder.encode_query(QUERIES, overlong="truncate") for embedder in (model, portable)]
    return Reference(opened, model.kernels, *vectors)


def test_a_tool_computes_moembeds_vectors(tool, precision, reference, tmp_path):
    queries, vectors = tmp_path / "queries.json", tmp_path / "vectors.npy"
    queries.write_text(json.dumps(QUERIES), "utf-8")
    folder, graph = reference.bundle.folder, reference.bundle.graph
    done = tool.run(FOLDER / "driver.py", TOOLS[tool.extra], folder, graph.name, queries, vectors)
    assert done.returncode == 0, done.stderr
    found = np.load(vectors)
    assert found.shape == reference.by_functions.shape
    functions, kernels = (float(np.abs(found - own).max()) for own in (reference.by_functions, reference.by_kernels))
    print(f"{tool.extra}, {precision}: max-abs {functions:.1e} to portable, {kernels:.1e} to {reference.kernels}")
    if tool.extra == "fastembed" and precision == "int8" and saturates():
        # It cannot pass session.x64quantprecision to ONNX Runtime. If it is exact one day, docs/interop.md must say so.
        assert INTEROP_MAX_ABS < functions <= INTEROP_SATURATED_MAX_ABS
    else:
        assert functions <= INTEROP_MAX_ABS
        assert kernels <= INTEROP_KERNELS_MAX_ABS["int8" if precision == "int8" else "fp32"]


@pytest.mark.parametrize("tool", ["optimum", "sentence-transformers-onnx"], indirect=True)
def test_the_pinned_transformers_does_not_know_nomic_bert(tool):
    """Both programs work around it. Once a set of newer releases resolves, they need not."""
    program = "import sys, transformers; transformers.AutoConfig.from_pretrained(sys.argv[1])"
    done = tool.run("-c", program, DEFAULT_FOLDER)
    assert done.returncode == 1
    assert "model type `nomic_bert` but Transformers does not recognize this architecture" in done.stderr
