"""Bundles in the hub's cache, whose files are symbolic links, work as plain folders do."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants

from moembed import Embedder
from moembed.bundle.external_data import follow_links
from moembed.bundle.manifest import MANIFEST_FILE
from moembed.cli import main
from moembed.errors import BundleError
from moembed.export.writer import check_replaceable
from moembed.pull.opening import open_bundle
from moembed.train.convert.warm_start import read_model
from support.evaluation_sets import write_beir
from support.serving import serving

TEXTS = ["one text", "another, somewhat longer text", "word " * 700]


def write_snapshot(cache: Path, name: str, bundle: Path, *, links: str = "relative") -> Path:
    """Lay a bundle out as huggingface_hub does: `relative` links, `absolute` ones, or `none` as on Windows."""
    base = cache / f"models--{name.replace('/', '--')}"
    commit = hashlib.sha1(name.encode()).hexdigest()
    for folder in ("blobs", "refs"):
        (base / folder).mkdir(parents=True)
    (base / "refs" / "main").write_text(commit)
    for file in [file for file in bundle.rglob("*") if file.is_file()]:
        target = base / "snapshots" / commit / file.relative_to(bundle)
        target.parent.mkdir(parents=True, exist_ok=True)
        if links == "none":
            shutil.copyfile(file, target)
            continue
        blob = base / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copyfile(file, blob)
        target.symlink_to(os.path.relpath(blob, target.parent) if links == "relative" else blob)
    return base / "snapshots" / commit


def tree(folder: Path) -> dict[str, tuple]:
    """Everything under a folder, as it would be seen to be changed."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_ino, path.lstat().st_mtime_ns, path.is_symlink())
        for path in folder.rglob("*")
    }


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "hub"


@pytest.fixture(scope="session")
def small_int8(int8) -> Embedder:
    return Embedder(int8, threads=1)


def place(how: str, int8: Path, tmp_path: Path) -> Path:
    """The bundle, with links in the way."""
    if how in ("relative", "absolute", "none"):
        return write_snapshot(tmp_path / "hub", "acme/int8", int8, links=how)
    if how == "snapshot behind a link":
        (tmp_path / "link").symlink_to(write_snapshot(tmp_path / "hub", "acme/int8", int8))
        return tmp_path / "link"
    folder = Path(shutil.copytree(int8, tmp_path / "folder"))
    moved = {
        "weights elsewhere": "onnx/model_int8.onnx_data",
        "graph elsewhere": "onnx/model_int8.onnx",
        "onnx elsewhere": "onnx",
    }
    source = folder / moved[how]
    (tmp_path / "elsewhere").mkdir()
    shutil.move(source, tmp_path / "elsewhere" / "ünïcode name")
    source.symlink_to(tmp_path / "elsewhere" / "ünïcode name")
    return folder


@pytest.mark.parametrize(
    "how",
    [
        "relative", "absolute", "none", "snapshot behind a link", "weights elsewhere", "graph elsewhere",
        "onnx elsewhere",
    ],
)  # fmt: skip
def test_every_method(int8, small_int8, tmp_path, how):
    folder = place(how, int8.folder, tmp_path)
    before = tree(tmp_path)
    linked, plain = Embedder.from_pretrained(folder, threads=1), small_int8
    options = {"overlong": "mean", "prompt": ""}
    for name, arguments, keywords in (
        ("encode", (TEXTS,), options),
        ("encode_query", (TEXTS[:2],), {"precision": "int8", "truncate_dim": 16}),
        ("encode_document", (TEXTS[0],), {}),
        ("token_embeddings", (TEXTS[1],), {"prompt": ""}),
        ("count_tokens", (TEXTS,), {}),
        ("tokens", (TEXTS[0],), {}),
    ):
        found, expected = (getattr(model, name)(*arguments, **keywords) for model in (linked, plain))
        assert np.array_equal(found, expected), name
    found, expected = (model.routing(TEXTS[1]) for model in (linked, plain))
    assert np.array_equal(found.experts, expected.experts)
    assert np.array_equal(found.weights, expected.weights)
    assert found.vector.tobytes() == expected.vector.tobytes()
    found, expected = (list(model.embed(TEXTS, **options)) for model in (linked, plain))
    assert [row.vector.tobytes() for row in found] == [row.vector.tobytes() for row in expected]
    assert np.array_equal(
        linked.similarity(found[0].vector, found[1].vector), plain.similarity(expected[0].vector, expected[1].vector)
    )
    assert linked.prompt_for("query") == plain.prompt_for("query")
    assert linked.bundle.fingerprint == int8.fingerprint
    assert tree(tmp_path) == before


@pytest.fixture
def command(capsys, hub_cache):
    def run(*argv):
        code = main([str(argument) for argument in argv])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


def test_every_command(command, bundle, int8, hub_cache, tmp_path):
    write_snapshot(hub_cache, "acme/fp32", bundle.folder)
    linked = write_snapshot(hub_cache, "acme/int8", int8.folder)
    (linked / "pytorch_model.bin").write_bytes(b"fetched by another program")
    (tmp_path / "text.md").write_text("The cat sleeps.\n\nFish swim.\n")
    before = tree(hub_cache)
    for name in ("acme/int8", linked):
        for argv in (
            ("embed", "a text", "--task", "query", "-m"),
            ("similarity", "a", "b", "-m"),
            ("search", tmp_path / "text.md", "cats", "--no-cache", "--json", "-m"),
        ):
            code, out, err = command(*argv, name)
            assert code == 0, err
            assert out == command(*argv, int8.folder)[1]
        assert command("info", name)[0] == 0
    code, out, err = command("verify", linked, "--against", "acme/fp32")
    assert code == 0, (out, err)
    assert tree(hub_cache) == before


def test_quantize_a_snapshot(command, bundle, int8, hub_cache, tmp_path):
    fp32 = write_snapshot(hub_cache, "acme/fp32", bundle.folder)
    before = tree(hub_cache)
    code, _, err = command("quantize", "acme/fp32", "-o", tmp_path / "made")
    assert code == 0, err
    assert open_bundle(tmp_path / "made").fingerprint == int8.fingerprint, "the same bytes as from a plain folder"
    assert command("quantize", "acme/int9", "-o", tmp_path / "none")[0] == 2
    assert tree(hub_cache) == before
    assert open_bundle(fp32).folder == fp32


@pytest.mark.long
def test_verify_a_snapshot_against_its_checkpoint(command, bundle, checkpoint, hub_cache):
    fp32 = write_snapshot(hub_cache, "acme/fp32", bundle.folder)
    for name in ("acme/fp32", fp32):
        for against in (checkpoint, fp32, "acme/fp32"):
            code, out, err = command("verify", name, "--against", against, "--texts", 1)
            assert code == 0, (out, err)


def test_evaluate_certifies_no_shared_cache(command, bundle, int8, hub_cache, tmp_path):
    fp32 = write_snapshot(hub_cache, "acme/fp32", bundle.folder)
    linked = write_snapshot(hub_cache, "acme/int8", int8.folder)
    copied = write_snapshot(hub_cache, "acme/copies", int8.folder, links="none")
    write_beir(tmp_path / "data" / "little")
    before = tree(hub_cache)
    common = ("evaluate", "little", "--data", tmp_path / "data", "--baseline", fp32)
    code, _, err = command(*common, "-m", "acme/int8")
    assert code == 0, err
    for folder in (linked, copied):
        code, _, err = command(*common, "-m", folder, "--certify")
        assert code == 2
        assert "other programs share" in err
        assert "cp -rL" in err
    assert "bundle folder" in command(*common, "-m", "acme/int8", "--certify")[2]
    assert tree(hub_cache) == before
    shutil.copytree(linked, tmp_path / "own")  # as cp -rL
    assert command(*common, "-m", tmp_path / "own", "--certify")[0] == 0
    assert json.loads((tmp_path / "own" / MANIFEST_FILE).read_text())["certificate"]["quality"]


def test_a_snapshot_is_not_written_over(command, bundle, int8, hub_cache):
    linked = write_snapshot(hub_cache, "acme/int8", int8.folder)
    before = tree(hub_cache)
    code, _, err = command("quantize", bundle.folder, "-o", linked, "--force")
    assert code == 2
    assert "which other programs share" in err
    assert tree(hub_cache) == before
    check_replaceable(int8.folder, force=True)


def test_training_starts_from_a_snapshot(int8, tmp_path):
    plain, linked = read_model(int8.folder), read_model(write_snapshot(tmp_path / "hub", "acme/int8", int8.folder))
    expected, found = plain.parameters, linked.parameters
    assert expected.keys() == found.keys()
    assert all(np.array_equal(expected[name], found[name]) for name in expected)


def test_every_endpoint(int8, tmp_path):
    linked = write_snapshot(tmp_path / "hub", "acme/int8", int8.folder)
    before = tree(tmp_path)
    with serving(model=(f"linked={linked}", f"plain={int8.folder}")) as server:
        for path in ("/", "/about", "/info", "/v1/models", "/api/tags", "/api/ps", "/health", "/ready", "/metrics"):
            assert server.get(path).status == 200, path
        answers = [
            [
                server.post("/v1/embeddings", {"model": f"{name}:query", "input": "a"}).json["data"],
                server.post("/v2/embed", {"model": name, "input_type": "search_query", "texts": ["a"]}).json[
                    "embeddings"
                ],
                server.post("/api/embed", {"model": f"{name}:query", "input": "a"}).json["embeddings"],
                server.post("/api/embeddings", {"model": f"{name}:query", "prompt": "a"}).json["embedding"],
                {**server.post("/routing", {"model": name, "input": "a", "input_type": "query"}).json, "model": ""},
            ]
            for name in ("linked", "plain")
        ]
        assert answers[0] == answers[1]
        assert server.post("/api/show", {"model": "linked"}).status == 200
        for path, body in {
            "/embed": {"inputs": "a", "prompt_name": "query"},
            "/embed_all": {"inputs": "a", "prompt_name": "query"},
            "/similarity": {
                "inputs": {"source_sentence": "a", "sentences": ["b"]},
                "parameters": {"prompt_name": "query"},
            },
            "/tokenize": {"inputs": "a"},
        }.items():
            answer = server.post(path, body)
            assert answer.status == 200, (path, answer.body)
    assert tree(tmp_path) == before


def test_a_location_that_leaves_the_folder_is_not_followed(int8):
    name = b"model_int8.onnx_data"
    graph = int8.graph.read_bytes()
    assert name in graph
    with pytest.raises(BundleError, match="leaves the bundle"):
        follow_links(graph.replace(name, b"../../../../data.bin"), int8.graph.parent)
    with pytest.raises(BundleError, match="damaged"):
        follow_links(graph[:-7], int8.graph.parent)


def test_a_graph_is_the_same_but_for_its_locations(int8, tmp_path):
    onnx = pytest.importorskip("onnx")
    graph = int8.graph.read_bytes()
    same, folder = follow_links(graph, int8.graph.parent)
    assert folder == int8.graph.parent.resolve()
    assert onnx.ModelProto.FromString(same) == onnx.ModelProto.FromString(graph)
    linked = write_snapshot(tmp_path, "acme/int8", int8.folder) / "onnx"
    other, folder = follow_links(graph, linked)
    assert folder == (tmp_path / "models--acme--int8" / "blobs").resolve()
    blob = (linked / "model_int8.onnx_data").resolve().name
    model = onnx.ModelProto.FromString(other)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                assert entry.value == blob
                entry.value = "model_int8.onnx_data"
    assert model == onnx.ModelProto.FromString(graph)
