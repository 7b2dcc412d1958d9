"""Hashes for the caches of datasets, joblib and Dask: equal where vectors are equal."""

import shutil
import subprocess
import sys
from functools import partial

import joblib
import pytest

from moembed import Embedder
from moembed.inference.kernels import PORTABLE, usable_kernels
from moembed.pull.opening import DEFAULT_FOLDER
from support.hub_server import Hub


def by_datasets(value):
    # Imported here and not by each process of a parallel run when it collects the tests: that takes most of a second.
    return pytest.importorskip("datasets.fingerprint").Hasher.hash(value)


def by_dask(value):
    tokenize = pytest.importorskip("dask.base").tokenize

    return tokenize(value)


HASHES = {"datasets": by_datasets, "joblib": joblib.hash, "dask": by_dask}
IN_A_NEW_PROCESS = """
import sys
from moembed import Embedder
model = Embedder.from_pretrained(sys.argv[1], threads=1)
model.encode_query("a text")
import joblib
from datasets.fingerprint import Hasher
from dask.base import tokenize
print(Hasher.hash(model), joblib.hash(model), tokenize(model), Hasher.hash(model.encode_document))
"""


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(DEFAULT_FOLDER, tmp_path / "bundle")


def test_another_process_with_another_folder_fewer_threads_and_after_use(model, folder):
    here = [*(make(model) for make in HASHES.values()), by_datasets(model.encode_document)]
    command = [sys.executable, "-c", IN_A_NEW_PROCESS, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == here


def test_the_hash_depends_on_what_decides_vectors(model, small, monkeypatch):
    other_limit, other_prompt = Embedder(model.bundle, threads=1), Embedder(model.bundle, threads=1)
    other_limit.max_tokens = 100
    other_prompt.prompts["query"] = "question: "
    others = [other_limit, other_prompt, small]
    if usable_kernels() != (PORTABLE,):
        monkeypatch.setenv("MOEMBED_KERNELS", "plain")
        plain = Embedder(model.bundle, threads=1)
        assert [make(plain) for make in HASHES.values()] == [make(model) for make in HASHES.values()]
        monkeypatch.setenv("MOEMBED_KERNELS", PORTABLE)
        others.append(Embedder(model.bundle, threads=1))
    for make in HASHES.values():
        assert len({make(one) for one in (model, *others)}) == 1 + len(others)


@pytest.mark.parametrize("library", HASHES)
def test_calls_with_options(model, library):
    make, twin = HASHES[library], Embedder(model.bundle, threads=1)

    def call(of, **options):
        return make(partial(of.encode_document, **options))

    options = [{}, {"truncate_dim": 256}, {"overlong": "mean"}, {"prompt": "title: "}, {"precision": "int8"}]
    hashes = [call(model, **given) for given in options]
    assert len(set(hashes)) == len(options)
    assert hashes == [call(twin, **given) for given in options]
    assert make(model.encode_query) != make(model.encode_document)


def test_a_bundle_of_the_hub_and_its_copy(model, tmp_path, monkeypatch):
    from huggingface_hub import constants

    with Hub() as hub:
        hub.add("acme/bundle", DEFAULT_FOLDER)
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        found = Embedder.from_pretrained("acme/bundle", threads=1)
    for make in HASHES.values():
        assert make(found) == make(model)


def test_a_closure_over_a_model(model, folder):
    def closure(of):
        return lambda rows: {"vector": of.encode_document(rows["text"])}

    assert by_datasets(closure(model)) == by_datasets(closure(Embedder.from_pretrained(folder, threads=1)))


def test_a_memory_of_joblib_finds_what_another_instance_computed(model, folder, tmp_path):
    calls = []

    def vectors(of, texts):
        calls.append(texts)
        return of.encode_document(texts)

    cached = joblib.Memory(tmp_path / "memory", verbose=0).cache(vectors)
    first = cached(model, ["a", "b"])
    assert cached(Embedder.from_pretrained(folder, threads=1), ["a", "b"]).tobytes() == first.tobytes()
    assert len(calls) == 1
