"""Shared fixtures: a small random checkpoint, its bundles, and the built-in model, each created once per run."""

import gc
import hashlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock
from huggingface_hub import constants

# In a parallel run coverage starts after this file is loaded: whatever imports moembed is imported by the fixtures.
if TYPE_CHECKING:
    from moembed import Embedder
    from moembed.bundle.bundle import Bundle
    from moembed.models.nomic_bert_moe.network import NomicMoe

# Threads of torch and of numpy's matrix products spin while they wait for each other, and take the CPUs from the other
# processes of a parallel run. These and the commands that tests start inherit the variable.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Else every command that tests start compiles the package again, and every process of a parallel run the tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


_numbers = itertools.count()

for _name in ("SIGINT", "SIGHUP"):
    # A shell without job control ignores SIGINT in `pytest &`, and nohup SIGHUP; commands that tests start would inherit that.
    if (_number := getattr(signal, _name, None)) and signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _name == "SIGINT" else signal.SIG_DFL)


def pytest_configure(config):
    # Not in pyproject.toml, from which pytest would import moembed before coverage starts.
    config.addinivalue_line("filterwarnings", "error::moembed.MoembedWarning")
    # Without a C++ compiler there is no native library, and all but its own tests pass.
    config.addinivalue_line("filterwarnings", "ignore::moembed.errors.NativeWarning")


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are CPUs: many tests wait for a server, a process or a time limit."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    # Libraries and tests stay until the end. Looking for garbage among them takes a fifth of the collection.
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        # Tests load more of them; with the default of 700 new objects a twentieth of the time goes into looking.
        gc.set_threshold(50_000, 20, 20)


def pytest_collection_modifyitems(items):
    from support.longest import put_first

    put_first(items)


def pytest_addoption(parser):
    parser.addoption("--count", type=int, default=20, help="number of repetitions of each test marked `long`")


@pytest.fixture(scope="session")
def count(request) -> int:
    return int(request.config.getoption("--count"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Keep tests away from the user's cache and kept models; no test sees those of another one."""
    base = tmp_path_factory.getbasetemp()
    monkeypatch.setenv("MOEMBED_CACHE", str(base / "cache"))
    monkeypatch.setenv("MOEMBED_DATA", str(base / "data" / f"{next(_numbers)}"))


@pytest.fixture(scope="session")
def once(tmp_path_factory, worker_id) -> Callable[[str, Callable[[Path], object]], Path]:
    """Make a file or folder once for all processes of a run: `once(name, make)` returns its path."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder if worker_id == "master" else folder.parent) / "once"
    folder.mkdir(exist_ok=True)

    def made(name: str, make: Callable[[Path], object]) -> Path:
        path, done = folder / name, folder / f"{name}.done"
        with FileLock(folder / f"{name}.lock"):
            if not done.exists():
                make(path)
                done.touch()
        return path

    return made


@pytest.fixture(scope="session", autouse=True)
def _traces(once):
    """A network is traced once: that takes seconds, and its configuration and the sources decide the graph."""
    from moembed.export import templates
    from support.tracing import kept_trace

    trace = templates._traced

    def traced(config):
        name = "trace " + hashlib.sha256(f"{type(config).__module__} {config!r}".encode()).hexdigest()[:16]
        return once(name, lambda path: kept_trace(trace, config, path)).read_bytes()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(templates, "_traced", traced)
        yield


@pytest.fixture(scope="session", autouse=True)
def spin_microseconds():
    """Threads of sessions do not spin: beside other processes that doubles the CPU time of a short call. The package's times."""
    from moembed.inference import session

    times = session._SPIN_MICROSECONDS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "_SPIN_MICROSECONDS", dict.fromkeys(times, 0))
        yield times


@pytest.fixture(scope="session", autouse=True)
def _vocabulary():
    """The vocabulary of the built-in model's `tokenizer.json` is read, not made: tests/export/test_vocabulary.py makes it."""
    from moembed.export import vocabulary
    from support.known_sizes import with_known_vocabulary

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "vocabulary_of", with_known_vocabulary(vocabulary.vocabulary_of))
        yield


@pytest.fixture(scope="session")
def checkpoint(once) -> Path:
    from support.checkpoints import small_config, write_checkpoint

    return once("small-moe", lambda path: write_checkpoint(path, small_config()))


@pytest.fixture(scope="session")
def template(checkpoint, once) -> Path:
    """Folder for PYTHONPATH: processes with it have a template of the small checkpoint's network, as of a known model."""
    from support.known_sizes import write_template

    return once("template", lambda path: write_template(path, checkpoint))


@pytest.fixture(scope="session")
def network(checkpoint) -> "NomicMoe":
    from moembed.models.checkpoint import load_network

    return load_network(checkpoint)


@pytest.fixture(scope="session")
def bundle(checkpoint, once) -> "Bundle":
    """fp32 bundle of the small checkpoint; tests must not change it."""
    from moembed.bundle.bundle import Bundle
    from moembed.export.pipeline import export
    from moembed.models.locate import locate

    return Bundle.open(once("fp32", lambda path: export(locate(checkpoint), path)))


@pytest.fixture(scope="session")
def int8(bundle, once) -> "Bundle":
    """INT8 bundle of the small checkpoint; tests must not change it."""
    from moembed.bundle.bundle import Bundle
    from moembed.quantize.pipeline import quantize

    return Bundle.open(once("int8", lambda path: quantize(bundle, path)))


@pytest.fixture(scope="session")
def projected(once) -> Path:
    """Checkpoint of two layers with a projection; of 64 dimensions, which recipes with a table in 4 bits need."""
    from support.checkpoints import small_config, write_checkpoint

    raw = small_config(n_embd=64, n_layer=2, projection=True)
    return once("projected", lambda path: write_checkpoint(path, raw, seed=5))


@pytest.fixture(scope="session")
def projected_bundles(projected, once) -> "Callable[[str], Bundle]":
    """Bundles of the checkpoint with a projection, by recipe; tests must not change them."""
    from moembed.bundle.bundle import Bundle
    from moembed.export.pipeline import export
    from moembed.models.locate import locate
    from moembed.quantize.pipeline import quantize

    def bundle(recipe):
        if recipe == "fp32":
            return Bundle.open(once("projected fp32", lambda path: export(locate(projected), path)))
        return Bundle.open(once(f"projected {recipe}", lambda path: quantize(bundle("fp32"), path, recipe=recipe)))

    return bundle


@pytest.fixture
def copy(int8, tmp_path) -> Path:
    """Folder with a copy of the INT8 bundle, for one test."""
    return shutil.copytree(int8.folder, tmp_path / "copy")


@pytest.fixture(scope="session")
def small(bundle) -> "Embedder":
    from moembed import Embedder

    return Embedder(bundle, threads=2, spin=False)


@pytest.fixture(scope="session")
def model() -> "Embedder":
    """Built-in model."""
    from moembed import Embedder

    return Embedder.from_pretrained(spin=False)


@pytest.fixture
def opened_once(model, monkeypatch) -> None:
    """Commands of the built-in model without options of it use the one that is open."""
    from moembed.cli import common, corpus, embed, search, similarity

    real = common.open_embedder

    def opened(arguments):
        plain = (arguments.model, arguments.provider, arguments.threads) == (None, "cpu", None)
        return model if plain else real(arguments)

    for module in (corpus, embed, search, similarity):
        monkeypatch.setattr(module, "open_embedder", opened)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Local hub and an empty cache for one test; huggingface_hub retries without delay."""
    from support.hub_server import Hub

    with Hub() as server:
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(time, "sleep", lambda _: None)
        yield server


@pytest.fixture(scope="session")
def small_server():
    """Server of the built-in model with small limits."""
    from support.serving import serving

    with serving(max_inputs=3, max_characters=1000, max_body_bytes=3000, body_timeout=0.5) as running:
        yield running


@pytest.fixture(scope="module")
def server():
    """Server of the built-in model with default settings."""
    from support.serving import serving

    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    """Browser of one module: its event loop must not outlive the module."""
    from support.browser import chromium, installed

    with chromium(installed()) as running:
        yield running


@pytest.fixture
def mounted(tmp_path):
    """Mount file systems for one test: `mounted(name, size)` returns a folder."""
    done = []
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs root, to mount")

    def mount(name, size):
        folder = tmp_path / name
        folder.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder]).returncode:
            pytest.skip("mounting is not allowed here")
        done.append(folder)
        return folder

    yield mount
    for folder in done:
        subprocess.run(["umount", "-l", folder], check=True)
