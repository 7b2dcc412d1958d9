"""The native library is found, checked, and never needed."""

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from moembed.cli import main
from moembed.errors import BundleError, NativeWarning
from moembed.native import loader as library_module
from moembed.native.loader import LIBRARY_FILE, NativeLibrary, native_library, open_library
from moembed.pull.opening import open_bundle
from moembed.tokenizer.tokenizer import Tokenizer
from support.folders import ROOT

NATIVE = ROOT / "runtime" / "native"
needs_native = pytest.mark.skipif(native_library().functions is None, reason="the native library was not compiled")


@pytest.fixture
def without(monkeypatch):
    """A process that could not load the library and has not said so yet."""
    import threading

    monkeypatch.setattr("moembed.tokenizer.tokenizer.native_library", lambda: NativeLibrary(None, "no reason at all"))
    monkeypatch.setattr(library_module, "_warn_once", threading.Lock())


def test_absent(tmp_path):
    found = open_library(tmp_path / "nothing.so")
    assert found.functions is None
    assert "install a C++17 compiler" in found.reason


def test_unloadable(tmp_path):
    path = tmp_path / LIBRARY_FILE.name
    path.write_bytes(b"\x7fELF of another machine")
    found = open_library(path)
    assert found.functions is None
    assert "cannot be loaded" in found.reason


@needs_native
def test_a_library_of_something_else():
    import numpy as np

    found = open_library(Path(np._core._multiarray_umath.__file__))
    assert found.functions is None
    assert "moembed_abi" in found.reason


@needs_native
def test_another_interface(monkeypatch):
    monkeypatch.setattr(library_module, "ABI", 999)
    found = open_library(LIBRARY_FILE)
    assert found.functions is None
    assert "this moembed needs 999" in found.reason


def test_the_two_sides_name_one_interface():
    assert f"kAbi = {library_module.ABI};" in (NATIVE / "api.h").read_text()


@needs_native
def test_it_exports_its_interface_only():
    if not shutil.which("nm") or not sys.platform.startswith("linux"):
        pytest.skip("needs nm")
    symbols = subprocess.run(["nm", "-D", "--defined-only", LIBRARY_FILE], capture_output=True, text=True, check=True)
    names = [line.split()[-1] for line in symbols.stdout.splitlines()]
    assert names
    assert all(name.startswith("moembed_") or name == "RegisterCustomOps" for name in names)


def test_one_warning_and_the_same_ids(without):
    bundle = open_bundle(None)
    with pytest.warns(NativeWarning, match="no reason at all"):
        tokenizer = Tokenizer(bundle)
    assert tokenizer.backend == "tokenizers"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Tokenizer(bundle)
    assert [ids.tolist() for ids in tokenizer.encode(["hello"])] == [
        ids.tolist() for ids in Tokenizer(bundle, backend="tokenizers").encode(["hello"])
    ]


def test_no_warning_where_it_was_not_wanted(without):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Tokenizer(open_bundle(None), backend="tokenizers")
        Tokenizer(open_bundle(None).folder / "tokenizer.json")


def test_asked_for_and_not_there(without):
    with pytest.raises(BundleError, match="requested, but cannot be used: no reason at all"):
        Tokenizer(open_bundle(None), backend="native")


@needs_native
def test_doctor_shows_it(capsys):
    assert main(["doctor", "--json"]) == 0
    assert str(LIBRARY_FILE) in json.loads(capsys.readouterr().out)["native library"]


def test_doctor_shows_why_not(capsys, monkeypatch, without):
    monkeypatch.setattr("moembed.native.loader.native_library", lambda: NativeLibrary(None, "no reason at all"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NativeWarning)
        assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["native library"] == "not used: no reason at all"


@needs_native
def test_tokenizers_is_not_imported():
    script = (
        "import sys; from moembed import Embedder; model = Embedder.from_pretrained(); model.encode_query('x'); "
        "model.tokens('x'); model.encode('x ' * 600, prompt='', overlong='mean'); print('tokenizers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "False"
