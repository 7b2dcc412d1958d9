"""Serving needs and imports only numpy, tokenizers and onnxruntime."""

import json
import subprocess
import sys

import pytest

from support.sites import make_site

_HEAVY = (
    "torch",
    "onnx",
    "onnxscript",
    "onnx_ir",
    "safetensors",
    "transformers",
    "optimum",
    "huggingface_hub",
    "tqdm",
    "scipy",
    "matplotlib",
    "ir_measures",
    "msgspec",
    "prometheus_client",
    "starlette",
    "uvicorn",
    "google",
)

_SCRIPT = """
import json, sys
import moembed
after_import = sorted(sys.modules)
model = moembed.Embedder.from_pretrained()
vector = model.encode_query("hello")
(record,) = model.embed(["hello"], prompt="query: ")
from moembed.cli import main
assert main(["embed", "hello", "--format", "csv", "-o", sys.argv[1]]) == 0
assert main(["export", "x", "-o", sys.argv[1] + ".bundle"]) == 2
assert main(["serve"]) == 2
print(json.dumps({"import": after_import, "run": sorted(sys.modules), "shape": vector.shape}))
"""


@pytest.fixture
def bare_site(tmp_path):
    return make_site(tmp_path / "site")


def test_without_torch_onnx_transformers(bare_site, tmp_path):
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(bare_site)!r})\n{_SCRIPT}"]
    done = subprocess.run(
        [*command, str(tmp_path / "out.csv")], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["shape"] == [384]
    assert not {m.split(".")[0] for m in result["run"]} & set(_HEAVY)
    assert "onnxruntime" not in result["import"], "importing the package loads no runtime yet"
    for extra in ("export", "serve"):
        assert f'pip install "moembed[{extra}]"' in done.stderr, "an extra that is missing says how to get it"
    assert (tmp_path / "out.csv").exists()


def test_in_this_environment_nothing_heavy_is_imported_either():
    script = (
        "import sys; from moembed import Embedder; Embedder.from_pretrained().encode_query('x'); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert not {m.split(".")[0] for m in done.stdout.split()} & set(_HEAVY)
