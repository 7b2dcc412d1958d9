"""A model's name: pulled once, then opened without the hub."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moembed import Embedder
from moembed.bundle.bundle import Bundle
from moembed.cli import main
from moembed.errors import SourceError
from moembed.pull import opening
from moembed.pull.model import DEFAULT_RECIPE, version_of
from moembed.store.kept import entry_name
from support.pulls import WEIGHTS

OPEN = """
import json, sys
from moembed import Embedder
model = Embedder.from_pretrained(sys.argv[1], threads=1)
vector = model.encode("a text", prompt="").tobytes().hex()
print(json.dumps({"vector": vector, "folder": str(model.bundle.folder), "modules": sorted(sys.modules)}))
"""
HEAVY = {"huggingface_hub", "torch", "onnx", "onnx_ir", "safetensors", "requests", "httpx", "tqdm"}


def opened(place, name="acme/ft"):
    process = place.python(OPEN, name)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out), err


def weights_of(bundle):
    """Digest of the weights; the graph names the source."""
    return bundle.manifest.files["onnx/model_int8.onnx_data"].sha256


@pytest.fixture(scope="module")
def vector(int8):
    return Embedder(int8, threads=1, spin=False).encode("a text", prompt="").tobytes().hex()


def test_only_the_bundle_stays(pulled):
    """N39, N03: no checkpoint in the cache, no partial, no lock."""
    place, ran, requests = pulled
    (folder,) = ran.stdout.splitlines()
    assert Path(folder).parent == place.data / "models" / "acme--ft"
    assert {path.name for path in Path(folder).parent.iterdir()} == {Path(folder).name, "index.json"}
    assert sum(path.stat().st_size for path in (place.root / "hf").rglob("*") if path.is_file()) < 200_000
    assert not list(place.root.rglob(WEIGHTS))
    paths = [request.path for request in requests if request.method == "GET" and request.repo]
    assert paths.count(WEIGHTS) == 1
    paths.remove("config.json")  # once to learn the commit
    assert sorted(paths) == sorted(set(paths)), "no other file is sent twice"


def test_the_bundle_is_that_of_the_separate_commands(pulled, int8):
    _, ran, _ = pulled
    bundle = Bundle.open(Path(ran.stdout.strip()))
    assert weights_of(bundle) == weights_of(int8)
    assert bundle.manifest.source.repo == "acme/ft"


def test_what_it_says_where_there_is_no_terminal(pulled):
    """N48"""
    err = pulled[1].stderr
    assert "\r" not in err
    assert "\x1b" not in err
    lines = err.splitlines()
    assert lines[0] == "moembed: downloading acme/ft" or "asking the hub" in lines[0]
    assert "acme/ft is not a model that moembed knows at this revision" in err
    assert all(line.startswith("moembed: ") for line in lines), lines


@pytest.mark.parametrize(
    "name", ["acme/ft", "Acme/FT/", " acme/ft", "{endpoint}/acme/ft", "{endpoint}/acme/ft/tree/main"]
)
def test_the_second_time_needs_nobody(pulled, vector, name):
    """N17, N18: a name in any form; the hub is up and is not asked."""
    place, _, _ = pulled
    before = len(place.hub.requests)
    if name.endswith("/tree/main"):
        place.run("pull", name.format(endpoint=place.hub.endpoint))  # another requested revision, of the same commit
        before = len(place.hub.requests)
    found, err = opened(place, name.format(endpoint=place.hub.endpoint))
    assert err == ""
    assert found["vector"] == vector
    assert place.hub.requests[before:] == []
    if "{" not in name:
        assert not {module.partition(".")[0] for module in found["modules"]} & HEAVY


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_no_socket_is_opened(pulled):
    """N16, N17"""
    place = pulled[0]
    command = ["strace", "-f", "-qq", "-e", "trace=socket,connect", sys.executable, "-c", OPEN, "acme/ft"]
    done = subprocess.run(command, env=place.environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "AF_INET" not in done.stderr


@pytest.mark.parametrize(
    "fault", [{"HF_ENDPOINT": "http://127.0.0.1:1"}, {"HF_TOKEN": "expired"}, {"HF_HUB_OFFLINE": "1"}]
)
def test_a_kept_model_does_not_depend_on_the_hub(filled, vector, fault):
    """N17"""
    filled.more |= fault
    assert opened(filled)[0]["vector"] == vector


@pytest.mark.long
def test_every_command_takes_the_name(filled, tmp_path):
    text = tmp_path / "t.txt"
    text.write_text("a text\n")
    for argv in (
        ["embed", "-m", "acme/ft", "a text", "--dim", "4"],
        ["similarity", "-m", "acme/ft", "a", "b"],
        ["info", "acme/ft"],
        ["search", "-m", "acme/ft", text, "x"],
        ["verify", "acme/ft"],
    ):
        ran = filled.run(*argv)
        assert ran.returncode == 0, ran.stderr


def test_offline_and_not_converted(monkeypatch, capsys):
    """N16: one sentence within a second, by the option, in the environment, and after the import."""
    for name, options in (("--offline", ["--offline"]), ("HF_HUB_OFFLINE", []), ("TRANSFORMERS_OFFLINE", [])):
        if not options:
            monkeypatch.setenv(name, "1")
        started = time.process_time()
        assert main(["embed", "-m", "nomic-ai/nomic-embed-text-v2-moe", "x", *options]) == 2
        assert time.process_time() - started < 1.0 or name == "--offline", "the first one imports huggingface_hub"
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "nomic-ai/nomic-embed-text-v2-moe is not converted yet" in err
        assert "run moembed pull nomic-ai/nomic-embed-text-v2-moe while online" in err
        monkeypatch.delenv(name, raising=False)


@pytest.mark.long
def test_a_quiet_pull_is_quiet(home):
    """N48"""
    ran = home.run("pull", "acme/ft", "-q", "-o", home.root / "out")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == f"{home.root / 'out'}\n"
    assert not home.data.exists(), "-o needs no data folder"
    assert sorted(path.name for path in home.root.iterdir()) == ["cache", "out"]


def test_a_kept_bundle_is_copied_out(filled, int8):
    ran = filled.run("pull", "acme/ft", "--offline", "-o", filled.root / "out")
    assert ran.returncode == 0, ran.stderr
    assert weights_of(Bundle.open(filled.root / "out", rehash=True)) == weights_of(int8)
    again = filled.run("pull", "acme/ft", "--offline", "-o", filled.root / "out")
    assert again.returncode == 2
    assert "is already a bundle: choose another folder, or replace it with --force" in again.stderr
    assert filled.run("pull", "acme/ft", "--offline", "-o", filled.root / "out", "--force").returncode == 0


def test_an_unknown_recipe_is_told_before_the_download(home):
    before = len(home.hub.requests)
    ran = home.run("pull", "acme/ft", "--recipe", "int3")
    assert ran.returncode == 2
    assert "unknown recipe 'int3': this version of moembed has int8," in ran.stderr
    assert home.hub.requests[before:] == []


def test_the_bundle_of_another_version_opens_and_says_so(filled, vector):
    """N24: offline too; vectors never change silently."""
    (folder,) = (filled.data / "models" / "acme--ft").glob("*-int8-*")
    older = folder.with_name(folder.name.replace(version_of(DEFAULT_RECIPE), "00000000"))
    folder.rename(older)
    filled.more["HF_HUB_OFFLINE"] = "1"
    found, err = opened(filled)
    assert found["vector"] == vector
    assert found["folder"] == str(older)
    assert "opening the bundle that moembed" in err
    assert "this version would make another one, with other vectors: moembed pull acme/ft" in err


def test_another_recipe_is_opened_if_it_is_the_only_one(filled):
    (folder,) = (filled.data / "models" / "acme--ft").glob("*-int8-*")
    wide = folder.name.replace("-int8-", "-int8-wide-").replace(version_of("int8"), version_of("int8-wide"))
    folder.rename(folder.with_name(wide))
    _, err = opened(filled)
    assert err == "moembed: acme/ft: opening the bundle with recipe int8-wide, the only one that is kept\n"


def test_a_name_that_is_no_model(monkeypatch, tmp_path):
    """N18"""
    monkeypatch.chdir(tmp_path)
    for name in ("x", "../x", "a/..", "a/b/c", ""):
        with pytest.raises((SourceError, ValueError)):
            opening.open_bundle(name)
    assert list(tmp_path.iterdir()) == []


def test_the_entry_of_a_name(filled):
    commit = filled.hub.repos["acme/ft"].commit
    assert (filled.data / "models" / "acme--ft" / entry_name(commit, "int8", version_of("int8"))).is_dir()
