"""Kept bundles: names, choice among several, listing and removal."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from moembed.bundle.manifest import MANIFEST_FILE
from moembed.cli import main
from moembed.errors import OutputError
from moembed.files.paths import replacing_folder
from moembed.store.kept import (
    INDEX_FILE,
    candidates,
    download_name,
    entries,
    entry_name,
    index_revision,
    indexed_revision,
    key_of,
    model_folder,
    remove,
)
from moembed.store.ownership import owning
from moembed.store.place import data_folder

COMMIT = "0123456789abcdef" + "f" * 24
VERSION = "aaaaaaaa"


@pytest.fixture
def kept(int8):
    """Folder of the model acme/ft with one bundle."""
    folder = model_folder("acme/ft")
    folder.mkdir(parents=True)
    shutil.copytree(int8.folder, folder / entry_name(COMMIT, "int8", VERSION))
    index_revision(folder, "Acme/FT", "", COMMIT)
    return folder


def only(kept):
    return kept / entry_name(COMMIT, "int8", VERSION)


def test_the_name_of_a_model_has_any_capitals():
    """N18"""
    assert model_folder("Acme/FT") == model_folder("acme/ft")
    assert key_of("a-b/c") != key_of("a/b-c")


def test_a_temporary_name_is_not_longer_than_the_final_one(tmp_path):
    """N10: where a path may have 260 characters, the final one would fit and the temporary one not."""
    final = tmp_path / entry_name(COMMIT, "int8", VERSION)
    with replacing_folder(final) as temporary:
        assert len(str(temporary)) <= len(str(final))
    assert len(download_name(COMMIT)) <= len(final.name)


def test_a_path_that_is_too_long_is_told_with_its_length(tmp_path, capsys, checkpoint):
    """N10"""
    code = main(["pull", str(checkpoint), "-o", str(tmp_path / ("x" * 300))])
    assert code == 2
    assert "File name too long (300 characters)" in capsys.readouterr().err


def test_the_best_of_several_bundles_comes_first(kept):
    """N24: that of this version, else the newest; other recipes last."""
    versions = {"int8": VERSION, "int8-wide": "bbbbbbbb"}
    names = [
        entry_name(COMMIT, "int8", VERSION),
        entry_name(COMMIT, "int8", "eeeeeeee"),
        entry_name(COMMIT, "int8", "dddddddd"),
        entry_name(COMMIT, "int8-wide", "bbbbbbbb"),
    ]
    for age, name in enumerate(names):
        (kept / name).mkdir(exist_ok=True)
        os.utime(kept / name, (10**9 - age, 10**9 - age))
    (kept / entry_name("f" * 40, "int8", VERSION)).mkdir()
    (kept / "something else").mkdir()
    assert [path.name for path in candidates(kept, COMMIT, "int8", lambda recipe: versions[recipe])] == names


def test_requested_revisions_are_remembered(kept):
    index_revision(kept, "Acme/FT", "v1", "e" * 40)
    assert indexed_revision(kept, "") == COMMIT
    assert indexed_revision(kept, "v1") == "e" * 40
    assert indexed_revision(kept, "v2") is None
    for damaged in ("", "[]", "{", '{"revisions": 3}', '{"revisions": {"": 3}}'):
        (kept / INDEX_FILE).write_text(damaged)
        assert indexed_revision(kept, "") is None
    index_revision(kept, "Acme/FT", "", COMMIT)
    assert indexed_revision(kept, "") == COMMIT


def test_everything_is_listed(kept, capsys):
    """N03: an incomplete download is no installed model, and has a size. N24: dead bundles are listed."""
    download = kept / download_name(COMMIT)
    download.mkdir()
    (download / "model.safetensors.part").write_bytes(b"x" * 5_000_000)
    dead = kept / entry_name(COMMIT, "int8", "00000000")
    dead.mkdir()
    (dead / MANIFEST_FILE).write_text('{"format": 1}')
    found = {entry.folder.name: entry for entry in entries()}
    assert found.keys() == {only(kept).name, download.name, dead.name}
    assert {entry.model for entry in found.values()} == {"Acme/FT"}
    assert found[only(kept).name].problem is None
    assert found[download.name].size == 5_000_000
    assert "format 1; this version of moembed reads" in found[dead.name].problem
    assert main(["models", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    states = {Path(entry["folder"]).name: entry["state"] for entry in printed["kept"]}
    assert states == {
        only(kept).name: "of another version of moembed",
        download.name: "incomplete",
        dead.name: "damaged",
    }
    assert printed["data_folder"] == str(data_folder())
    assert set(printed["known"]) >= {"nomic-ai/nomic-embed-text-v2-moe", "sentence-transformers/all-MiniLM-L6-v2"}
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"Acme/FT  -  5.0 MB  {COMMIT[:12]}  incomplete" in lines
    assert str(only(kept)) in "\n".join(lines)
    for name in printed["known"]:
        assert f"{name}  not converted: moembed pull {name}" in lines


def test_a_listing_sweeps_what_a_killed_process_left(kept):
    """N03"""
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom moembed.files.paths import replacing_folder\n"
        "with replacing_folder(Path(sys.argv[1])) as new:\n"
        "    (new / 'x').write_bytes(b'y' * 1000)\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, str(kept / entry_name(COMMIT, "int8", "cccccccc"))])
    assert len(list(kept.glob(".moembed-*"))) == 1
    assert [entry.folder for entry in entries()] == [only(kept)]
    assert list(kept.glob(".moembed-*")) == []


def test_a_running_conversion_is_listed_and_not_removed(kept):
    with owning(kept, lambda *_: None), replacing_folder(kept / entry_name(COMMIT, "int8", "cccccccc")):
        listed = {entry.problem for entry in entries()}
        assert any(problem and problem.startswith("conversion in progress by process") for problem in listed)
        with pytest.raises(
            OutputError, match=rf"acme/ft is being converted by process {os.getpid()} on .*lock\): stop it"
        ):
            remove("acme/ft", model_folder("acme/ft"))


def test_removal(kept, capsys):
    """N40"""
    (kept / download_name(COMMIT)).mkdir()
    assert main(["models", "--remove", "ACME/ft/"]) == 0
    said = capsys.readouterr().err
    assert "removed ACME/ft" in said
    assert "files in the hub's cache are not touched" in said
    assert not kept.exists()
    assert main(["models", "--remove", "acme/ft"]) == 0, "gone is success"
    assert "nothing is kept of acme/ft" in capsys.readouterr().err
    outside = kept.parents[2] / "etc"
    (outside / "int8").mkdir(parents=True)
    for name in ("../../etc", "../etc", "a/..", str(outside)):
        main(["models", "--remove", name])
        said = capsys.readouterr().err
        assert "nothing is kept of" in said or "not a hub name" in said
    assert (outside / "int8").exists(), "no name leaves the data folder"


def test_removal_of_a_checkpoint_folder_that_is_gone(kept, tmp_path, capsys):
    """N40: by the name under which it is listed."""
    gone = str(tmp_path / "gone")
    index_revision(kept, gone, "x", COMMIT)
    assert main(["models", "--remove", gone]) == 0
    assert f"removed {gone}" in capsys.readouterr().err
    assert not kept.exists()


def test_removal_follows_no_link(kept, int8, tmp_path):
    """N40"""
    elsewhere = shutil.copytree(int8.folder, tmp_path / "elsewhere")
    shutil.rmtree(only(kept) / "onnx")
    (only(kept) / "onnx").symlink_to(elsewhere / "onnx")
    (kept / entry_name(COMMIT, "int8", "cccccccc")).symlink_to(elsewhere)
    (kept / download_name(COMMIT)).symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    removal = remove("acme/ft", model_folder("acme/ft"))
    assert sorted(elsewhere.rglob("*")) == before
    assert any(f"{elsewhere}, to which " in text for text in removal.kept)


def test_removal_of_a_link_out_of_the_data_folder(kept, int8, tmp_path):
    """N40"""
    elsewhere = tmp_path / "elsewhere"
    kept.rename(elsewhere)
    kept.symlink_to(elsewhere)
    removal = remove("acme/ft", model_folder("acme/ft"))
    assert not kept.is_symlink()
    assert only(elsewhere).is_dir()
    assert removal.kept == [f"{elsewhere}, to which {kept} was a link"]


@pytest.mark.parametrize("manifest", [True, False])
def test_removal_leaves_files_of_others(kept, manifest):
    """N40: also in a bundle that lost its manifest."""
    if not manifest:
        (only(kept) / MANIFEST_FILE).unlink()
    mine = [kept / "notes.txt", only(kept) / "vectors.npy", only(kept) / "onnx" / "readme"]
    for path in mine:
        path.write_text("mine")
    removal = remove("acme/ft", model_folder("acme/ft"))
    assert sorted(path for path in kept.rglob("*") if path.is_file()) == sorted(mine)
    assert removal.freed > 1_000_000
    assert any("notes.txt, which moembed did not make" in text for text in removal.kept)
    assert any("which has other files: " in text and "vectors.npy" in text for text in removal.kept)


def test_a_model_whose_folder_went_meanwhile(kept):
    """N40"""
    shutil.rmtree(only(kept))
    assert remove("acme/ft", model_folder("acme/ft")).freed < 1000
    assert not kept.exists()


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="nothing is read-only to root")
def test_what_cannot_be_removed_is_told(kept):
    kept.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="cannot be removed: Permission denied: ask its owner"):
            remove("acme/ft", model_folder("acme/ft"))
    finally:
        kept.chmod(0o700)
