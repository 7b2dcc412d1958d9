"""Pickles, copies and errors that cross a process boundary."""

import copy
import multiprocessing
import pickle  # noqa: TID251  (what is pickled here is ours)
import shutil
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor

import pytest

from moembed import Chunk, Embedder, MoembedError, errors, pickling
from moembed.bundle.bundle import Bundle
from moembed.errors import BundleError, MissingExtraError, SourceError, TextTooLongError, TruncationWarning
from moembed.pull.opening import DEFAULT_FOLDER, open_bundle
from support.bundles import change_bundle
from support.hub_server import Hub

TEXTS = ["hello", "a text of some more words"]


class Tagged(Embedder):
    """A subclass with an attribute and arguments of its own."""

    def __init__(self, tag: str) -> None:
        super().__init__(open_bundle(None), threads=1)
        self.tag = tag


def again(model):
    return pickle.loads(pickle.dumps(model))


def elsewhere(path) -> subprocess.CompletedProcess[str]:
    """Read a pickle in a new process."""
    script = (
        f"import pickle; model = pickle.load(open({str(path)!r}, 'rb')); "
        "print(model.threads, model.encode_query(['hello']).tobytes().hex())"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(DEFAULT_FOLDER, tmp_path / "bundle")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_one_instance_per_process(model, protocol):
    content = pickle.dumps(model, protocol)
    assert len(content) < 1000, "a reference, not the weights"
    assert pickle.loads(content) is model


def test_one_instance_for_those_that_were_read(folder):
    written = [pickle.dumps(Embedder.from_pretrained(folder, threads=2)) for _ in range(3)]
    found = []
    readers = [threading.Thread(target=lambda c=content: found.append(pickle.loads(c))) for content in written]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert len(found) == 3
    assert len({id(model) for model in found}) == 1
    assert found[0].threads == 2
    assert found[0] is not again(Embedder.from_pretrained(folder, threads=1)), "other options, another instance"


def test_in_a_new_process(model, folder, tmp_path):
    expected = model.encode_query(["hello"]).tobytes().hex()
    for name, given in {"built-in": model, "folder": Embedder.from_pretrained(folder, threads=1)}.items():
        (tmp_path / name).write_bytes(pickle.dumps(given))
        done = elsewhere(tmp_path / name)
        assert done.stdout.split() == [str(given.threads), expected], done.stderr


def test_a_relative_folder_is_found_from_elsewhere(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    (tmp_path / "pickle").write_bytes(pickle.dumps(Embedder.from_pretrained("bundle", threads=1)))
    monkeypatch.chdir("/")
    assert elsewhere(tmp_path / "pickle").returncode == 0


def test_a_hub_name_is_opened_where_the_folder_is_not(tmp_path, monkeypatch):
    from huggingface_hub import constants

    with Hub() as hub:
        commit = hub.add("acme/bundle", DEFAULT_FOLDER)
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "one"))
        first = Embedder.from_pretrained("acme/bundle", threads=1)
        content, expected = pickle.dumps(first), first.encode_query(TEXTS).tobytes()
        del first
        (tmp_path / "one").rename(tmp_path / "gone")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "two"))
        found = pickle.loads(content)
        assert found.bundle.hub == ("acme/bundle", commit)
        assert found.bundle.folder.is_relative_to(tmp_path / "two")
        assert found.encode_query(TEXTS).tobytes() == expected
        # A folder of the same path into which another process is downloading.
        content = pickle.dumps(found)
        (found.bundle.folder / "tokenizer.json").unlink()
        monkeypatch.setattr(pickling, "_pickled", {})
        monkeypatch.setattr(pickling, "_restored_here", {})
        assert pickle.loads(content).encode_query(TEXTS).tobytes() == expected
        (found.bundle.folder / "tokenizer.json").unlink()
        monkeypatch.setattr(pickling, "_restored_here", {})
        hub.stop()
        with pytest.raises(SourceError, match="which cannot be opened on .* is not in the cache"):
            pickle.loads(content)


def test_no_bundle_or_another_one_at_the_other_end(folder):
    content = pickle.dumps(Embedder.from_pretrained(folder, threads=1))
    change_bundle(folder)
    with pytest.raises(BundleError, match="another bundle is there on .*: use the same bundle"):
        pickle.loads(content)
    shutil.rmtree(folder)
    with pytest.raises(
        BundleError, match=f"refers to the bundle {folder}, which cannot be opened on .*: .*no such folder"
    ):
        pickle.loads(content)
    shutil.copytree(DEFAULT_FOLDER, folder)
    assert pickle.loads(content).dim == 384, "an attempt that failed is made again"


def test_what_was_set_is_kept(model):
    changed = Embedder(model.bundle, threads=1)
    changed.max_tokens = 8
    changed.prompts["title"] = "title: "
    found = again(changed)
    assert (found.max_tokens, found.prompts["title"]) == (8, "title: ")
    assert found.count_tokens("x", prompt_name="title") == changed.count_tokens("x", prompt_name="title")
    with pytest.raises(TextTooLongError):
        found.encode_query("far more words than that few tokens can hold")
    assert "title" not in again(Embedder(model.bundle, threads=1)).prompts, "the shared instance is as it was"


def test_subclasses(model):
    found = again(Tagged("blue"))
    assert (type(found), found.tag) == (Tagged, "blue")
    assert found.encode_query(TEXTS).tobytes() == model.encode_query(TEXTS).tobytes()
    assert again(Tagged("red")).session is found.session
    assert type(again(model)) is Embedder


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_copies_share_the_session_and_nothing_that_is_set(copied, folder):
    model = Embedder.from_pretrained(folder, threads=1)
    shutil.rmtree(folder)  # nothing is opened again
    found = copied(model)
    assert found is not model
    assert found.session is model.session
    found.max_tokens = 99
    assert model.max_tokens == 512
    if copied is copy.deepcopy:
        found.prompts["title"] = ""
        assert "title" not in model.prompts
    assert found.encode_query(TEXTS).tobytes() == model.encode_query(TEXTS).tobytes()
    assert copied({"a": [model, model]})["a"][0].session is model.session


def test_a_copy_of_a_subclass():
    found = copy.deepcopy(Tagged("blue"))
    assert (type(found), found.tag) == (Tagged, "blue")


def test_a_bound_method_in_a_pool(model):
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        found = [vector.tobytes() for vector in pool.map(model.encode_query, TEXTS * 2)]
        with pytest.raises(TextTooLongError) as caught:
            pool.submit(model.encode_query, "word " * 600).result(120)
    assert found == [model.encode_query(text).tobytes() for text in TEXTS * 2]
    assert (caught.value.index, caught.value.limit) == (0, 512)


def test_what_a_model_gives(model):
    (record,) = model.embed(["hello"], prompt="")
    (back,) = again([record])
    assert (back.vector.tobytes(), back.tokens) == (record.vector.tobytes(), record.tokens)
    assert again(model.routing("hello")).experts.tobytes() == model.routing("hello").experts.tobytes()
    assert again(Chunk(overlap=8)) == Chunk(overlap=8)
    assert again(Bundle.open(DEFAULT_FOLDER)) == Bundle.open(DEFAULT_FOLDER)


@pytest.mark.parametrize(
    "error",
    [
        TextTooLongError("too long", index=3, tokens=600, limit=512, counted="600 tokens"),
        MissingExtraError("torch", "Exporting", remedy="pip install torch"),
        SourceError("no folder"),
        TruncationWarning("cut", (1, 2)),
        *(kind("words") for kind in (MoembedError, errors.InputError, errors.OutputError, errors.PromptWarning)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_and_warnings(error):
    for found in (again(error), copy.copy(error), copy.deepcopy(error)):
        assert type(found) is type(error)
        assert (str(found), found.args, vars(found)) == (str(error), error.args, vars(error))


def test_notes_of_an_error():
    error = BundleError("words")
    error.add_note("more")
    assert again(error).__notes__ == ["more"]


def test_reading_warns_of_nothing(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again(model)
