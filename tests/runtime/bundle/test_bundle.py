"""Bundle format: its documentation, and the refusal of invalid bundles."""

import os
import re
import shutil
from dataclasses import fields

import onnx
import pytest

from moembed import Embedder
from moembed.bundle import manifest
from moembed.bundle.bundle import Bundle, sha256_of
from moembed.bundle.manifest import MANIFEST_FILE, Manifest
from moembed.errors import BundleError, SourceError
from support.bundles import edit, relist
from support.sources import modules


@pytest.fixture
def copy(bundle, tmp_path):
    """A private copy of the small bundle."""
    return shutil.copytree(bundle.folder, tmp_path / "copy")


def test_the_page_names_exactly_the_fields():
    documented = re.findall(r"^\| `(\w+)` \|", manifest.__doc__, re.MULTILINE)
    assert sorted(documented) == sorted(field.name for field in fields(Manifest))


def test_a_manifest_survives_a_round_trip(bundle):
    text = bundle.manifest.to_json()
    assert Manifest.from_json(text) == bundle.manifest
    assert Manifest.from_json(text).to_json() == text
    assert (bundle.folder / MANIFEST_FILE).read_text() == text


def test_every_file_is_listed(bundle):
    on_disk = {p.relative_to(bundle.folder).as_posix() for p in bundle.folder.rglob("*") if p.is_file()}
    assert on_disk == set(bundle.manifest.files) | {MANIFEST_FILE}
    assert bundle.size == sum((bundle.folder / name).stat().st_size for name in bundle.manifest.files)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not a valid JSON object"),
        ("[]", "not a moembed bundle"),
        ('{"model": 1}', "not a moembed bundle"),
        ('{"format": 3}', "format 3.*upgrade moembed"),
        ('{"format": 1}', "format 1.*export the bundle again with this version"),
        ('{"format": 2}', "missing"),
    ],
)
def test_a_foreign_manifest(text, said):
    with pytest.raises(BundleError, match=said):
        Manifest.from_json(text)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("hidden_size", 0, "positive integer"),
        ("hidden_size", True, "positive integer"),
        ("max_tokens", "512", "an integer above 2"),
        ("dims", [999], "widths"),
        ("dims", 48, "a list"),
        ("prompts", {"query": 1}, "prompts.query = 1; expected a string"),
        ("prompt_required", "yes", "true or false"),
        ("recipe", "../int8", "a recipe's name"),
        ("graph", "onnx/other.onnx", "listed files"),
        ("source", {"repo": None}, r"source: missing \['revision', 'config_sha256', 'weights_sha256'\]"),
        ("files", {"a": 3}, "files.a = 3; expected an object"),
        ("files", [], "expected an object"),
        ("certificate", [], "an object"),
        ("surprise", 1, "unknown"),
    ],
)
def test_a_wrong_field_is_named(copy, field, value, said):
    edit(copy, lambda raw: raw.update({field: value}))
    with pytest.raises(BundleError, match=said) as caught:
        Bundle.open(copy)
    assert field in str(caught.value)


@pytest.mark.parametrize(
    "path",
    ["../outside", "/etc/passwd", "a/../../b", "onnx//model.onnx", "./a", "C:/x", "a\\..\\b", "", "a\0b"],
)
def test_a_path_that_leaves_the_bundle(copy, path):
    edit(copy, lambda raw: raw["files"].update({path: {"size": 1, "sha256": "0" * 64}}))
    with pytest.raises(BundleError, match="leaves the bundle"):
        Bundle.open(copy)


@pytest.mark.parametrize("name", ["tokenizer.json", "onnx/model.onnx", "onnx/model.onnx_data"])
def test_missing_truncated_altered(copy, name):
    path = copy / name
    whole = path.read_bytes()
    Bundle.open(copy)

    flipped = bytearray(whole)
    flipped[len(flipped) // 2] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(BundleError, match="altered"):
        Bundle.open(copy)

    path.write_bytes(whole[:-1])
    with pytest.raises(BundleError, match="truncated"):
        Bundle.open(copy)

    path.unlink()
    with pytest.raises(BundleError, match=f"lacks {name}"):
        Bundle.open(copy)

    path.write_bytes(whole)
    assert Bundle.open(copy).manifest


def test_an_unchanged_file_is_hashed_once_and_a_changed_one_again(copy, monkeypatch):
    from moembed.bundle import bundle as module

    hashed = []
    monkeypatch.setattr(module, "sha256_of", lambda path: hashed.append(path.name) or sha256_of(path))
    Bundle.open(copy)
    assert len(hashed) == len(Bundle.open(copy).manifest.files)
    hashed.clear()
    path = copy / "config.json"
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # size and times as before: the change time tells
    with pytest.raises(BundleError, match="config.json.*altered"):
        Bundle.open(copy)
    assert hashed == ["config.json"]
    hashed.clear()
    with pytest.raises(BundleError, match="altered"):
        Bundle.open(copy, rehash=True)
    assert hashed


def test_a_cache_that_cannot_be_written_costs_only_time(copy, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MOEMBED_CACHE", str(tmp_path / "file"))
    assert Bundle.open(copy).manifest
    monkeypatch.setenv("MOEMBED_CACHE", str(tmp_path / "garbage"))
    Bundle.open(copy)
    for stamp in (tmp_path / "garbage").rglob("*.json"):
        stamp.write_text("not json")
    assert Bundle.open(copy).manifest


def test_a_foreign_file_is_refused_and_a_readme_is_not(copy):
    (copy / "README.md").write_text("mine")
    (copy / "LICENSE").write_text("mine")
    (copy / ".gitattributes").write_text("")
    assert Bundle.open(copy).manifest
    (copy / "onnx" / "evil.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(BundleError, match=r"onnx/evil.pkl.*does not list"):
        Bundle.open(copy)


def test_external_data_cannot_leave_the_folder(copy, tmp_path):
    (tmp_path / "outside").write_bytes((copy / "onnx" / "model.onnx_data").read_bytes())
    path = copy / "onnx" / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    for location in ("../../outside", str(tmp_path / "outside")):
        for init in model.graph.initializer:
            for entry in init.external_data:
                if entry.key == "location":
                    entry.value = location
        path.write_bytes(model.SerializeToString())
        relist(copy, "onnx/model.onnx")  # even a manifest that vouches for the graph does not help it
        with pytest.raises(BundleError, match="cannot be loaded: it reads the external data"):
            Embedder.from_pretrained(copy)


@pytest.mark.parametrize(
    ("name", "content"),
    [("onnx/model.onnx", b"\x80\x04\x95garbage"), ("tokenizer.json", b"{"), ("tokenizer.json", b"\x80\x04.")],
)
def test_garbage_that_the_manifest_vouches_for(copy, name, content):
    (copy / name).write_bytes(content)
    relist(copy, name)
    with pytest.raises(BundleError, match="not a usable graph|not a readable tokenizer|made from another tokenizer"):
        Embedder.from_pretrained(copy)


def test_what_is_not_a_bundle(checkpoint, tmp_path):
    with pytest.raises(SourceError, match="no folder"):
        Embedder.from_pretrained(tmp_path / "nothing")
    with pytest.raises(SourceError, match="owner/name"):
        Embedder.from_pretrained("nothing")
    with pytest.raises(BundleError, match="not a bundle"):
        Embedder.from_pretrained(tmp_path)
    with pytest.raises(BundleError, match="moembed export"):
        Bundle.open(checkpoint)


def test_nothing_in_the_package_can_unpickle():
    for path in modules().values():
        source = path.read_text()
        assert not re.search(
            r"\bimport (pickle|marshal|shelve)|torch\.load\(|allow_pickle=True|trust_remote_code=True[,)]", source
        ), path
