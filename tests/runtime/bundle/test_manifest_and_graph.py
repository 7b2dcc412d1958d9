"""Damaged or malicious bundles: opening one raises a `BundleError` with file and field, without delay."""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys

import pytest

from moembed import Embedder
from moembed.bundle.bundle import Bundle
from moembed.bundle.manifest import MANIFEST_FILE, Manifest
from moembed.cli import main
from moembed.errors import BundleError, MoembedError
from moembed.export.vocabulary import VOCABULARY_FILE
from support.bundles import edit, open_error, relist

posix = pytest.mark.skipif(os.name != "posix", reason="files of POSIX")
LISTED = ("config.json", "tokenizer.json", VOCABULARY_FILE, "onnx/model_int8.onnx", "onnx/model_int8.onnx_data")


@pytest.fixture(scope="module")
def text(int8):
    return (int8.folder / MANIFEST_FILE).read_text("utf-8")


NUMBER = "1" * 4300
ODD_MANIFESTS = {
    "nested lists": ("[" * 100_000, "nested"),
    "nested lists that end": ("[" * 100_000 + "]" * 100_000, "nested"),
    "nested objects": ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested"),
    "a nested field": ('{"format": 1, "name": ' + "[" * 200 + "]" * 200 + "}", "nested"),
    "format of 4300 digits": (f'{{"format": {NUMBER}}}', "4,300 digits"),
    "format of 4301 digits": (f'{{"format": {NUMBER}1}}', "4,301 digits"),
    "format of minus 5000 digits": (f'{{"format": -{"9" * 5000}}}', "5,000 digits"),
    "format true": ('{"format": true}', "format True"),
    "format 1.0": ('{"format": 1.0}', "format 1.0"),
    "format NaN": ('{"format": NaN}', "format nan"),
    "twice": ('{"format": 1, "format": 1}', "'format' twice"),
    "a lone surrogate as a field": ('{"format": 1, "\\ud800": 1}', "lone surrogate U\\+D800"),
    "an empty file": ("", "not a valid JSON object"),
    "a number": ("1", "not an object"),
    "a byte-order mark": ("\ufeff{}", "BOM"),
    "a long string": (json.dumps({"format": "x" * 10**6}), "characters"),
}


@pytest.mark.parametrize("case", ODD_MANIFESTS)
def test_an_odd_manifest(case, copy):
    content, said = ODD_MANIFESTS[case]
    with pytest.raises(BundleError, match=said) as caught:
        Manifest.from_json(content)
    assert MANIFEST_FILE in str(caught.value)
    (copy / MANIFEST_FILE).write_text(content, "utf-8")
    assert MANIFEST_FILE in open_error(copy)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("hidden_size", int("9" * 18), "hidden_size"),
        ("hidden_size", 48.0, "hidden_size"),
        ("hidden_size", float("nan"), "hidden_size"),
        ("hidden_size", -(10**17), "hidden_size"),
        ("hidden_size", -(2**63), "an integer of 19 digits"),
        ("hidden_size", 49, "hidden_size = 49"),
        ("hidden_size", 96, "hidden_size = 96"),
        ("max_tokens", float("inf"), "max_tokens"),
        ("max_tokens", 2, "max_tokens"),
        ("max_tokens", 513, "max_tokens = 513, but .*has 512 positions"),
        ("max_tokens", 10**17, "max_tokens"),
        ("dims", [24.0], "dims"),
        ("dims", [[1]], "dims"),
        ("prompts", {"query": "\ud800"}, "prompts.query.? has the lone surrogate U\\+D800"),
        ("prompts", {"\udfff": "x"}, "a key of prompts.? has the lone surrogate"),
        ("name", "\udc80", "name.? has the lone surrogate"),
        ("name", ["x" * 10**6], "name = "),
        ("recipe", ["int8"], "recipe"),
        ("recipe", {}, "recipe"),
        ("graph", {}, "graph"),
        ("graph", "config.json", "config.json"),
        ("graph", "tokenizer.json", "tokenizer.json"),
        ("graph", VOCABULARY_FILE, VOCABULARY_FILE),
        ("graph", "onnx/model_int8.onnx_data", "not a usable graph"),
        ("source", {"repo": 1, "revision": None, "config_sha256": "", "weights_sha256": ""}, "source.repo = 1"),
        ("source", {"repo": None, "revision": None, "config_sha256": None, "weights_sha256": ""}, "source.config_sha256"),
        ("source", "x" * 10**6, "source"),
        ("made_with", {"a": 1}, "made_with"),
        ("files", {"a": {"size": True, "sha256": "0" * 64}}, "files"),
        ("files", {"a": {"size": -1, "sha256": "0" * 64}}, "files"),
        ("files", {"a": {"size": 1, "sha256": "0" * 63}}, "files"),
        ("files", {"a": {"size": 1, "sha256": "G" * 64}}, "files"),
        ("files", {"a": {"size": 1, "sha256": "0" * 64, "x": 1}}, "files"),
        ("files", {"a": [1, "0" * 64]}, "files"),
        ("files", {"\udcff": {"size": 1, "sha256": "0" * 64}}, "lone surrogate"),
    ],
)  # fmt: skip
def test_an_odd_field(copy, place, value, said):
    edit(copy, lambda raw: raw.update({place: value}))
    with pytest.raises(BundleError, match=said):
        Embedder.from_pretrained(copy, threads=1)
    open_error(copy)


@pytest.mark.parametrize(("name", "said"), [("a" * 5000, "cannot be read"), ("config.json/x", "cannot be read")])
def test_a_listed_path_that_no_file_can_have(copy, name, said):
    edit(copy, lambda raw: raw["files"].update({name: {"size": 1, "sha256": "0" * 64}}))
    with pytest.raises(BundleError, match=said):
        Bundle.open(copy)


# Special files. Everything here ends at once or the test hangs, which the time limit of `ended` shows.


def _fifo(path):
    os.mkfifo(path)


def _folder(path):
    path.mkdir()


def _socket(path):
    # Names of sockets are short.
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


def _link_to(target):
    return lambda path: path.symlink_to(target)


def _link_to_fifo(path):
    os.mkfifo(path.parent / ".fifo")
    path.symlink_to(".fifo")


def _loop(path):
    path.symlink_to(path.name)


SPECIAL = {
    "a FIFO": _fifo,
    "a link to a FIFO": _link_to_fifo,
    "a folder": _folder,
    "a socket": _socket,
    "/dev/zero": _link_to("/dev/zero"),
    "/dev/null": _link_to("/dev/null"),
    "/dev/tty": _link_to("/dev/tty"),
    "a link to itself": _loop,
    "an endless file of /proc": _link_to("/proc/self/pagemap"),
}

_OPEN = """
import sys
from moembed import Embedder
from moembed.bundle.bundle import Bundle
from moembed.errors import BundleError
for folder in sys.argv[1:]:
    for way in (Embedder.from_pretrained, Bundle.open, lambda f: Bundle.open(f, rehash=True, exclusive=False)):
        try:
            way(folder)
        except BundleError as error:
            print(error)
        else:
            print("opened")
"""


def ended(*folders):
    """Open bundles in a subprocess with a timeout; return the lines of its output."""
    command = [sys.executable, "-c", _OPEN, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.splitlines()


@posix
def test_special_files_in_place_of_every_listed_file(int8, tmp_path):
    folders = []
    for number, name in enumerate((MANIFEST_FILE, *LISTED)):
        for kind, make in SPECIAL.items():
            folder = tmp_path / f"{number} {kind.replace('/', ' ')}"
            # Links are how the hub's cache holds its files.
            shutil.copytree(int8.folder, folder)
            (folder / name).unlink()
            make(folder / name)
            if name != MANIFEST_FILE:
                path = folder / MANIFEST_FILE
                raw = json.loads(path.read_text("utf-8"))
                raw["files"][name] = {"size": 0, "sha256": hashlib.sha256().hexdigest()}
                path.unlink()
                path.write_text(json.dumps(raw), "utf-8")
            folders.append((folder, name))
    lines = ended(*(folder for folder, _ in folders))
    assert len(lines) == 3 * len(folders)
    for index, (folder, name) in enumerate(folders):
        for line in lines[3 * index : 3 * index + 3]:
            assert name in line, (folder, line)
            assert "cannot be read" in line or "altered" in line, (folder, line)


@posix
def test_a_bundle_of_links_opens(int8, tmp_path):
    for name in (*Bundle.open(int8.folder).manifest.files, MANIFEST_FILE):
        link = tmp_path / "links" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(int8.folder / name)
    assert Embedder.from_pretrained(tmp_path / "links").encode("x", prompt="").shape == (48,)


@posix
@pytest.mark.parametrize("name", [MANIFEST_FILE, "tokenizer.json", "onnx/model_int8.onnx"])
def test_ten_gigabytes_of_nothing(copy, name):
    """They take no room, and would take all memory when read; a file whose size is wrong is not read at all."""
    with (copy / name).open("r+b") as file:
        file.truncate(10 << 30)
    (line, *_) = ended(copy)
    assert name in line
    assert "bytes" in line


def test_a_graph_beyond_what_onnx_can_hold(copy):
    with (copy / "onnx/model_int8.onnx").open("r+b") as file:
        file.truncate(2 << 30)
    edit(copy, lambda raw: raw["files"]["onnx/model_int8.onnx"].update(size=2 << 30))
    from moembed.bundle.graph_check import check_graph

    with pytest.raises(BundleError, match="the limit of ONNX is 2,147,483,647"):
        check_graph(copy, Manifest.from_json((copy / MANIFEST_FILE).read_text("utf-8")))


# `info`.

SIZES = {"n_layer": 2, "num_experts": 4, "moe_top_k": 2, "moe_every_n_layers": 2}
ODD_CONFIGS = {
    "no JSON": (b"{", "JSON object"),
    "empty": (b"", "JSON object"),
    "a list": (b"[]", "not an object"),
    "deep": (b"[" * 100_000, "nested"),
    "huge": (b" " * (2 << 20), "2,097,152 bytes"),
    "without sizes": (b"{}", "n_layer is missing"),
    "a string as a size": (json.dumps(SIZES | {"moe_top_k": "2"}).encode(), "moe_top_k is '2'"),
    "true as a size": (json.dumps(SIZES | {"num_experts": True}).encode(), "num_experts is True"),
    "a list as a size": (json.dumps(SIZES | {"n_layer": [1] * 9999}).encode(), "n_layer is"),
    "binary": (bytes(range(256)), "JSON object"),
    "UTF-16": (json.dumps(SIZES).encode("utf-16"), "JSON object"),
    "a number of 4,300 digits": (b'{"n_layer": ' + b"1" * 4300 + b"}", "4,300 digits"),
}


@pytest.mark.parametrize("case", ODD_CONFIGS)
def test_info_of_an_odd_config(case, copy, capsys):
    content, said = ODD_CONFIGS[case]
    (copy / "config.json").write_bytes(content)
    relist(copy, "config.json")
    assert main(["info", str(copy)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "config.json" in err
    assert said in err
    assert len(err.splitlines()) == 1
    assert len(err) < 800
    assert main(["info", "--json", str(copy)]) == 0


NASTY = "evil\x1b]0;title\x07\x1b[2J\x9b31m\r\x7f\u202egnp.exe\nrecipe       fp32"


def test_info_and_verify_escape_control_characters(copy, capsys):
    edit(copy, lambda raw: raw.update(name=NASTY, prompts={NASTY: NASTY}, made_with={NASTY: NASTY}))
    edit(copy, lambda raw: raw["source"].update(repo=NASTY, revision=NASTY))
    edit(copy, lambda raw: raw["certificate"]["machine"].update(cpu=NASTY))
    assert main(["info", str(copy)]) == 0
    plain = capsys.readouterr().out
    assert main(["info", "--json", str(copy)]) == 0
    as_json = capsys.readouterr().out
    assert json.loads(as_json)["name"] == NASTY
    assert plain.count("\nrecipe ") == 1, "a name cannot pass for a line of its own"
    assert "\\u001b]0;title\\u0007" in plain
    for printed in (plain, as_json):
        assert not any(ord(c) < 32 and c != "\n" for c in printed)
        assert not set(printed) & set("\x7f\x9b\u202e")


def test_errors_and_search_escape_control_characters(copy, tmp_path, capsys):
    edit(copy, lambda raw: raw.update(recipe=NASTY))
    assert main(["info", str(copy)]) == 2
    assert not set(capsys.readouterr().err) & set("\x1b\x07\x7f\x9b\r\u202e")
    (tmp_path / "a.md").write_text(f"# {NASTY}\n\nhello {NASTY}\n", "utf-8")
    for form in ([], ["--json"]):
        assert main(["search", "--no-cache", str(tmp_path / "a.md"), "hello", *form]) == 0
        out = capsys.readouterr().out
        assert "\\u001b" in out
        assert not set(out) & set("\x1b\x07\x7f\x9b\r\u202e")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(copy):  # pragma: no cover
    (copy / "tokenizer.json").chmod(0)
    with pytest.raises(MoembedError, match="cannot be read"):
        Bundle.open(copy)
