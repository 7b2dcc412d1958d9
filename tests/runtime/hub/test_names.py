"""Names of models as people type them (N18)."""

import pytest
from huggingface_hub import constants

from moembed.errors import SourceError
from moembed.hub.names import HubName, check_file_name, parse
from moembed.models.locate import locate

KNOWN = ["nomic-ai/nomic-embed-text-v2-moe"]


@pytest.mark.parametrize(
    ("typed", "repo", "revision"),
    [
        ("O/N", "O/N", None),
        (" O/N\n", "O/N", None),
        ("O/N/", "O/N", None),
        ("o.w-n_e.r/n.a-m_e9", "o.w-n_e.r/n.a-m_e9", None),
        ("Nomic-AI/Nomic-Embed-Text-V2-MoE", KNOWN[0], None),
        ("https://huggingface.co/O/N", "O/N", None),
        ("HTTPS://HuggingFace.co/O/N/", "O/N", None),
        ("http://www.huggingface.co/O/N?library=sentence-transformers#usage", "O/N", None),
        ("https://huggingface.co/O/N/tree/v1.0", "O/N", "v1.0"),
        ("https://huggingface.co/O/N/tree/refs%2Fpr%2F1", "O/N", "refs/pr/1"),
        ("https://huggingface.co/O/N/blob/refs/pr/1/config.json", "O/N", "refs/pr/1"),
        ("https://huggingface.co/O/N/resolve/main/model.safetensors?download=true", "O/N", "main"),
        ("https://huggingface.co/O/N/discussions/3", "O/N", None),
        ("huggingface.co/O/N", "O/N", None),
        ("hf.co/O/N", "O/N", None),
        ("https://hf.co/O/N/tree/main", "O/N", "main"),
        ("hf://O/N@v2", "O/N", "v2"),
        ("https://mirror.example:8443/hub/O/N/tree/v1", "O/N", "v1"),
    ],
)
def test_what_people_type_is_understood(monkeypatch, typed, repo, revision):
    monkeypatch.setattr(constants, "ENDPOINT", "https://mirror.example:8443/hub")
    assert parse(typed, known=KNOWN) == HubName(repo, revision)


@pytest.mark.parametrize(
    "typed",
    ["", "x", "../x", "a/..", "./x", "a/.", "/a/b", "a/b/c", "a\\b", "C:/x", "~/x", "a/b c", "ä/b", "//", "a//b"],
)
def test_a_path_is_no_hub_name(typed):
    assert parse(typed) is None


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("https://example.com/O/N", "'example.com' is not the hub"),
        ("https://huggingface.co", "not the address of a model"),
        ("https://huggingface.co/datasets/O/N", "not the address of a model"),
        ("https://huggingface.co/spaces/O/N", "not the address of a model"),
        ("https://huggingface.co/O/N/tree/main/onnx", "names a folder inside O/N"),
        ("https://huggingface.co/O/N/tree/..%2Fx", "not the name of a commit, tag or branch"),
        ("https://huggingface.co/O/..", "not a valid hub name"),
        ("O/a--b", "not a valid hub name: it contains --"),
        ("O/-b", "begins or ends with - or ."),
        ("O/b.git", "it ends with .git"),
        (f"O/{'b' * 100}", "more than 96"),
    ],
)
def test_what_is_no_model_is_refused_at_once(hub, typed, said):
    with pytest.raises(SourceError, match=said):
        parse(typed)
    assert hub.requests == []


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/1", "feature/x_y", "a" * 40, "1.0+build"])
def test_revisions(revision):
    assert parse("O/N", revision) == HubName("O/N", revision)


@pytest.mark.parametrize(
    "revision", ["../x", "a/../b", "/x", "x/", "a//b", ".x", "a/.x", "a b", "a\\b", "", "x\n", "a:b", "~x"]
)
def test_odd_revisions_are_refused(hub, tmp_path, revision):
    with pytest.raises(SourceError, match="is not the name of a commit, tag or branch"):
        locate("O/N", revision=revision, into=tmp_path / "into")
    assert hub.requests == []
    assert list(tmp_path.iterdir()) == []


def test_two_revisions_are_a_contradiction():
    with pytest.raises(SourceError, match="names the revision v1, but revision = 'v2' was passed too"):
        parse("https://huggingface.co/O/N/tree/v1", "v2")
    assert parse("https://huggingface.co/O/N/tree/v1", "v1") == HubName("O/N", "v1")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", "a\\..\\x", "C:x", "a//b", "./a", "a\0b", "a\nb"])
def test_a_file_never_leaves_its_folder(name):
    with pytest.raises(SourceError, match="is not a path inside its folder"):
        check_file_name("O/N", name)


def test_files_in_folders_are_fine():
    check_file_name("O/N", "1_Pooling/config.json")
