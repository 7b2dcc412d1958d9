"""Models by hub name, against a local server: requests, cached files, and errors.

The tests that need a process of their own steer huggingface_hub by its documented environment variables, which it reads
when it is imported; the others set the constants it read them into.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from moembed import Embedder
from moembed.bundle.bundle import Bundle, read_manifest, sha256_of
from moembed.bundle.manifest import MANIFEST_FILE
from moembed.errors import BundleError, CheckpointError, SourceError
from moembed.models.locate import OPTIONAL_FILES, REQUIRED_FILES, locate
from moembed.models.weights import WEIGHTS_FILE
from moembed.pull.opening import DEFAULT_FOLDER, open_bundle
from support.checkpoints import published_spec
from support.folders import DATA
from support.hub_server import Fault, Hub

WEIGHTS = "onnx/model_int8.onnx_data"
OFFLINE = (
    "acme/bundle is not converted yet, its checkpoint is not on this machine, and the network is not allowed: run moembed pull "
    "acme/bundle while online"
)
LISTED = set(read_manifest(DEFAULT_FOLDER).files)
PUBLISHED_CONFIG_FILE = DATA / "published_config.json"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """The default bundle with something beside it that its manifest does not list."""
    folder = bundle_repository(tmp_path_factory.mktemp("repository") / "bundle")
    (folder / "pytorch_model.bin").write_bytes(b"not for us")
    return folder


@pytest.fixture(scope="module")
def used(repository, tmp_path_factory):
    """A hub, the bundle's commit, and a home whose cache a first process has filled from it."""
    with Hub() as server:
        commit = server.add("acme/bundle", repository)
        home = tmp_path_factory.mktemp("home")
        yield server, commit, home, run(server, home, vector_of("'acme/bundle'"))


def bundle_repository(folder, *, without=()):
    """The default bundle as links: nobody writes to them."""
    for name in {MANIFEST_FILE, *LISTED} - set(without):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(DEFAULT_FOLDER / name)
    return folder


def vector_of(arguments):
    return (
        "from moembed import Embedder\n"
        f"model = Embedder.from_pretrained({arguments}, threads=1)\n"
        "print(model.bundle.folder, model.encode_query('a text').tobytes().hex())"
    )


def run(hub, home, code, **more):
    """Run code in a process of its own, with huggingface_hub's defaults but for the place of the hub and the cache."""
    environment = environment_of(hub, home) | more
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)


def environment_of(hub, home):
    ours = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE_"))}
    return inherited | ours


def asked_of(hub, method="GET"):
    return [request.path for request in hub.requests if request.method == method]


def test_a_bundle_by_name(used, model):
    hub, commit, home, ran = used
    assert ran.returncode == 0, ran.stderr
    folder, vector = ran.stdout.split()
    assert vector == model.encode_query("a text").tobytes().hex()
    snapshot = Path(folder)
    assert snapshot.name == commit
    assert snapshot.is_relative_to(home)
    assert (snapshot / WEIGHTS).is_symlink(), "the case that ONNX Runtime could refuse"
    downloaded = [r.path for r in hub.requests if r.method == "GET" and r.repo]
    assert sorted(downloaded) == sorted({MANIFEST_FILE, *LISTED}), "each listed file once, nothing else"


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        ("'acme/bundle', revision='{commit}'", {}),
        ("'acme/bundle', local_files_only=True", {}),
        ("'acme/bundle'", {"HF_HUB_OFFLINE": "1"}),
    ],
    ids=["pinned", "local_files_only", "HF_HUB_OFFLINE"],
)
def test_what_is_cached_needs_no_request(used, arguments, environment):
    hub, commit, home, first = used
    before = len(hub.requests)
    again = run(hub, home, vector_of(arguments.format(commit=commit)), **environment)
    assert again.returncode == 0, again.stderr
    assert again.stdout == first.stdout
    assert hub.requests[before:] == []


def test_the_offline_switch_of_huggingface_hub_with_nothing_cached(used, tmp_path):
    hub = used[0]
    before = len(hub.requests)
    ran = run(
        hub, tmp_path, "from moembed.pull.opening import open_bundle; open_bundle('acme/bundle')", HF_HUB_OFFLINE="1"
    )
    said = ran.stderr.splitlines()[-1]
    assert said.startswith(f"moembed.errors.SourceError: {OFFLINE}")
    assert hub.requests[before:] == []


def test_local_files_only_with_nothing_cached(hub, repository):
    hub.add("acme/bundle", repository)
    with pytest.raises(SourceError, match=OFFLINE):
        open_bundle("acme/bundle", local_files_only=True)
    assert hub.requests == []


def test_a_hub_that_is_down(hub, repository):
    commit = hub.add("acme/bundle", repository, refs=("main", "v1"))
    folder = open_bundle("acme/bundle", revision="v1").folder
    hub.stop()
    assert open_bundle("acme/bundle", revision="v1").folder == folder
    assert open_bundle("acme/bundle", revision=commit, local_files_only=True).folder == folder
    with pytest.raises(SourceError, match="at revision main is not in the cache and the network"):
        open_bundle("acme/bundle")


def test_all_files_are_of_one_commit(hub, repository):
    """A branch may move while its files are fetched."""
    commit = hub.add("acme/bundle", repository)
    open_bundle("acme/bundle")
    named = [request for request in hub.requests if request.revision != commit]
    assert [(request.method, request.path, request.revision) for request in named] == [("HEAD", MANIFEST_FILE, "main")]


def test_what_others_fetched_into_the_snapshot_is_not_our_business(hub, repository):
    hub.add("acme/bundle", repository)
    folder = open_bundle("acme/bundle").folder
    (folder / "pytorch_model.bin").write_bytes(b"not for us")
    assert open_bundle("acme/bundle").folder == folder
    assert open_bundle(folder).folder == folder


def test_a_cache_of_the_callers_choice(hub, repository, tmp_path):
    hub.add("acme/bundle", repository)
    folder = open_bundle("acme/bundle", cache_dir=tmp_path / "elsewhere").folder
    assert folder.is_relative_to(tmp_path / "elsewhere")
    assert not Path(constants.HF_HUB_CACHE).exists()


@pytest.mark.parametrize(
    ("name", "revision", "said"),
    [
        ("acme/nothing", None, "no repository acme/nothing on the hub"),
        ("acme/bundle", "v9", "acme/bundle has no revision v9: pass one of its commits, tags or branches"),
        ("acme/bundle", "0" * 40, "acme/bundle has no revision 0000"),
        ("acme/incomplete", None, "acme/incomplete at revision .* holds no tokenizer.json"),
        ("acme/../bundle", None, "no folder acme/../bundle, and it is not a hub name"),
        ("acme/bun--dle", None, "acme/bun--dle is not a valid hub name: .*--"),
    ],
)
def test_what_cannot_be_had_is_said(hub, repository, tmp_path, name, revision, said):
    hub.add("acme/bundle", repository)
    hub.add("acme/incomplete", bundle_repository(tmp_path / "incomplete", without=["tokenizer.json", WEIGHTS]))
    hub.repos["acme/incomplete"].folder.joinpath(WEIGHTS).write_bytes(b"")  # listed in front of the tokenizer
    with pytest.raises(SourceError, match=said):
        open_bundle(name, revision=revision)


def test_an_altered_bundle_is_refused(hub, tmp_path):
    folder = bundle_repository(tmp_path / "altered", without=[WEIGHTS])
    shutil.copyfile(DEFAULT_FOLDER / WEIGHTS, folder / WEIGHTS)
    with (folder / WEIGHTS).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        (last,) = file.read()
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    hub.add("acme/altered", folder)
    with pytest.raises(BundleError, match=f"{WEIGHTS} in .* the file was altered"):
        Embedder.from_pretrained("acme/altered")


def test_a_broken_download_is_resumed(hub, repository):
    hub.add("acme/bundle", repository)
    hub.faults[WEIGHTS] = Fault("close", keep=30_000_000, times=1)
    assert open_bundle("acme/bundle", rehash=True)
    ranges = [request.range for request in hub.requests if request.path == WEIGHTS and request.method == "GET"]
    assert len(ranges) == 2, "the fault struck"
    assert ranges[1] is not None


@pytest.mark.parametrize("how", ["close", "reset"])
def test_half_a_file_is_never_taken_for_a_whole_one(hub, repository, how):
    commit = hub.add("acme/bundle", repository)
    hub.faults["tokenizer.json"] = Fault(how, keep=100_000)
    with pytest.raises(SourceError, match=r"tokenizer.json of acme/bundle .* could not be downloaded"):
        open_bundle("acme/bundle")
    assert "tokenizer.json" in asked_of(hub)
    with pytest.raises(SourceError, match=r"tokenizer.json .* not in the cache"):
        open_bundle("acme/bundle", local_files_only=True)
    hub.faults.clear()
    folder = open_bundle("acme/bundle").folder
    assert folder.name == commit
    assert Bundle.open(folder, rehash=True)


def test_a_checkpoint_by_name(hub, checkpoint, monkeypatch):
    commit = hub.add("acme/checkpoint", checkpoint)
    found = locate("acme/checkpoint")
    assert (found.spec.name, found.spec.repo, found.spec.revision) == ("checkpoint", "acme/checkpoint", commit)
    assert len(commit) == 40
    local = locate(checkpoint)
    assert (found.config, found.spec.prompts, found.spec.max_tokens) == (
        local.config,
        local.spec.prompts,
        local.spec.max_tokens,
    )
    assert (found.config_sha256, found.weights_sha256) == (local.config_sha256, local.weights_sha256)
    held = {name for name in (*REQUIRED_FILES, WEIGHTS_FILE, *OPTIONAL_FILES) if (checkpoint / name).exists()}
    assert set(OPTIONAL_FILES) - held, "some optional files are missing, and that is fine"
    assert sorted(asked_of(hub)) == sorted(held)
    hub.stop()
    assert locate("acme/checkpoint", local_files_only=True) == found
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert locate("acme/checkpoint") == found


def test_a_checkpoint_at_a_cached_commit_needs_no_request(hub, checkpoint):
    """Not even for the optional files that it does not hold."""
    commit = hub.add("acme/checkpoint", checkpoint)
    found = locate("acme/checkpoint", revision=commit)
    hub.requests.clear()
    assert locate("acme/checkpoint", revision=commit) == found
    assert hub.requests == []


@pytest.mark.parametrize("fault", [Fault("unavailable"), Fault("close", keep=5)], ids=lambda fault: fault.how)
def test_an_optional_file_that_fails_is_not_taken_for_absent(hub, checkpoint, fault):
    """The prompts are in one: a model without them would be exported, and be wrong."""
    hub.add("acme/checkpoint", checkpoint)
    hub.faults["config_sentence_transformers.json"] = fault
    with pytest.raises(SourceError, match="config_sentence_transformers.json"):
        locate("acme/checkpoint")


def test_a_repository_without_weights_is_no_checkpoint(hub, repository):
    hub.add("acme/bundle", repository)
    with pytest.raises(SourceError, match=r"acme/bundle at revision .* holds no model.safetensors"):
        locate("acme/bundle")


def test_the_published_model_is_pinned_and_checked(hub, checkpoint, tmp_path):
    published = published_spec()
    folder = tmp_path / "published"
    folder.mkdir()
    shutil.copyfile(PUBLISHED_CONFIG_FILE, folder / "config.json")
    shutil.copyfile(checkpoint / "tokenizer.json", folder / "tokenizer.json")
    (folder / "model.safetensors").write_bytes(b"other weights")
    hub.add(published.repo, folder, commit=published.revision)
    other, expected = sha256_of(folder / "tokenizer.json"), published.sha256["tokenizer.json"]
    with pytest.raises(CheckpointError, match=f"tokenizer.json .* has sha256 {other}, expected {expected}"):
        locate("nomic-ai/nomic-embed-text-v2-moe")
    assert {r.revision for r in hub.requests} == {"1066b6599d099fbb93dfcb64f9c37a7c9e503e85"}


def test_four_processes_that_unpickle_a_model_at_once_download_it_once(int8, tmp_path):
    code = "import pickle, sys; print(pickle.loads(bytes.fromhex(sys.argv[1])).encode('a text', prompt='').tobytes().hex())"
    pickled = (
        "import pickle; from moembed import Embedder; "
        "print(pickle.dumps(Embedder.from_pretrained('acme/bundle', threads=1)).hex())"
    )
    with Hub() as hub:
        hub.add("acme/bundle", int8.folder)
        first = run(hub, tmp_path / "first", pickled)
        assert first.returncode == 0, first.stderr
        shutil.rmtree(tmp_path / "first")
        hub.requests.clear()
        # At the path of the pickle, where the first one makes a snapshot that the others find.
        command = [sys.executable, "-c", code, first.stdout.strip()]
        environment = environment_of(hub, tmp_path / "first")
        started = [
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(4)
        ]
        answers = [process.communicate(timeout=120) for process in started]
    expected = Embedder(int8, threads=1).encode("a text", prompt="").tobytes().hex()
    assert [out.strip() for out, _ in answers] == [expected] * 4, [err for _, err in answers]
    assert asked_of(hub).count(WEIGHTS) == 1
