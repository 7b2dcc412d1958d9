"""`moembed stamp`: what it shows, what it compares, and its exit codes."""

import json
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moembed import StampedVectors, load_vectors, save_vectors, stamp_of
from moembed.cli import main


@pytest.fixture(scope="module")
def stamped(model):
    return StampedVectors(model.encode_document(["a", "b"]), stamp_of(model, model.prompt_for("document")))


def save(path, stamped, **changes):
    save_vectors(path, replace(stamped, stamp=replace(stamped.stamp, **changes)))
    return str(path)


def test_one_file(model, stamped, tmp_path, capsys):
    assert main(["stamp", save(tmp_path / "a.parquet", stamped)]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0] == str(tmp_path / "a.parquet")
    for line in (
        "prompt       'passage: '",
        "width        384",
        "normalized   yes",
        model.bundle.fingerprint,
        "1 file",
    ):
        assert line in shown


def test_files_of_one_kind(stamped, tmp_path, capsys):
    save(tmp_path / "a.parquet", stamped)
    save(tmp_path / "b.npy", stamped)
    save(tmp_path / "c.parquet", stamped, moembed="0.0.1")
    assert main(["stamp", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("fingerprint") == 2, "files with one stamp share it"
    assert f"has vectors of the kind of {tmp_path / 'a.parquet'}, under another moembed" in shown
    assert "3 files hold vectors of one kind" in shown


def test_differences_and_json(stamped, tmp_path, capsys):
    first = save(tmp_path / "a.parquet", stamped, kernels="native")
    second = save(tmp_path / "b.parquet", stamped, kernels="portable", prompt="query: ")
    assert main(["stamp", first, second]) == 1
    shown = capsys.readouterr().out
    assert f"differs from {first} in kernels: 'native', and 'portable'" in shown
    assert f"differs from {first} in prompt: 'passage: ', and 'query: '" in shown
    assert shown.endswith("2 files do not hold vectors of one kind\n")
    assert main(["stamp", "--json", first, second]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["same"] is False
    assert [len(file["differences"]) for file in found["files"]] == [0, 2]
    assert found["files"][0]["stamp"]["width"] == 384


def test_no_stamp_is_not_the_same_stamp(stamped, tmp_path, capsys):
    np.save(tmp_path / "plain.npy", stamped.vectors)
    assert main(["stamp", str(tmp_path / "plain.npy")]) == 1
    assert "no stamp: nobody knows" in capsys.readouterr().out
    first = save(tmp_path / "a.parquet", stamped)
    assert main(["stamp", first, str(tmp_path / "plain.npy")]) == 1
    assert capsys.readouterr().out.endswith("1 of 2 files without a valid stamp\n")
    assert main(["stamp", "--json", first, str(tmp_path / "plain.npy")]) == 1
    assert json.loads(capsys.readouterr().out)["same"] is False


def test_a_changed_file_and_one_with_another_width(stamped, tmp_path, capsys):
    path = tmp_path / "a.npy"
    save(path, stamped)
    np.save(path, stamped.vectors[:, :256])
    assert main(["stamp", str(path)]) == 1
    assert "has changed since a.npy.stamp.json was written" in capsys.readouterr().out


def test_no_such_file(tmp_path, capsys):
    assert main(["stamp", str(tmp_path / "none.npy")]) == 2
    assert "no file or folder" in capsys.readouterr().err


@pytest.mark.usefixtures("opened_once")
def test_embed_writes_the_stamp_of_its_options_beside_a_file(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["embed", "a", "--task", "query", "--dim", "256", "--precision", "int8", "-o", "x.jsonl"]) == 0
    assert main(["embed", "a", "--task", "query", "--dim", "256", "--precision", "int8", "-o", "x.npy"]) == 0
    assert main(["stamp", "x.jsonl", "x.npy"]) == 0
    shown = capsys.readouterr().out
    for line in ("prompt       'query: '", "width        256", "precision    'int8'", "overlong     'error'"):
        assert line in shown
    assert len(load_vectors("x.jsonl").scales) == 1
    assert load_vectors("x.npy").vectors.tobytes() == load_vectors("x.jsonl").vectors.tobytes()
    assert main(["embed", "a", "--task", "query", "--overlong", "mean", "-o", "x.npy"]) == 0
    assert main(["stamp", "x.jsonl", "x.npy"]) == 1
    assert "differs from x.jsonl in overlong: 'error', and 'mean'" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="needs a FIFO")
@pytest.mark.usefixtures("opened_once")
def test_no_stamp_beside_what_is_no_file(tmp_path):
    assert main(["embed", "a", "-o", "/dev/null"]) == 0
    assert not Path("/dev/null.stamp.json").exists()
    os.mkfifo(tmp_path / "fifo.npy")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "fifo.npy").read_bytes()))
    reader.start()
    assert main(["embed", "a", "-o", str(tmp_path / "fifo.npy")]) == 0
    reader.join(60)
    assert got[0].startswith(b"\x93NUMPY")
    assert [path.name for path in tmp_path.iterdir()] == ["fifo.npy"]
