"""`moembed search` on files that are not text, not regular, unreadable, or have odd names."""

import base64
import gzip
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import unicodedata
import zipfile
from contextlib import closing

import pytest

from moembed.cli import main
from moembed.errors import InputError
from moembed.files.paths import readable
from moembed.search import text_files as text_files_module
from moembed.search.text_files import text_files

NOTEBOOK = {
    "cells": [{"cell_type": "markdown", "source": ["cats"], "outputs": [{"image/png": "iVBORw0KGgo" * 99}]}],
    "metadata": {},
    "nbformat": 4,
    "nbformat_minor": 5,
}
PDF = b"%PDF-1.4\n1 0 obj << /Type /Catalog /Title (cats) >> endobj\ntrailer << /Root 1 0 R >>\n%%EOF\n"


def read(*paths):
    """(path, text) of what is read, and name -> reason of what is skipped."""
    skipped = []
    found = list(text_files(paths, skipped=skipped.append))
    return found, {one.path.name: one.reason for one in skipped}


def make_binary_files(folder):
    """One file of each kind, all named as text; name -> a word of the reason."""
    reasons = {}

    def add(name, content, reason):
        (folder / name).write_bytes(content)
        reasons[name] = reason

    add("ascii pdf.txt", PDF, "PDF")
    add("pdf with a byte order mark.md", b"\xef\xbb\xbf\n" + PDF, "PDF")
    add("notebook.txt", json.dumps(NOTEBOOK, indent=1).encode(), "notebook")
    add("rtf.txt", b"{\\rtf1\\ansi cats}", "RTF")
    add("gzip.txt", gzip.compress(b"cats"), "gzip")
    add("picture.md", b"\x89PNG\r\n\x1a\n" + bytes(99), "picture")
    add("jpeg.md", b"\xff\xd8\xff\xe0" + bytes(99), "picture")
    add("utf16.txt", "cats".encode("utf-16"), "UTF-16")
    add("latin1.txt", "caf\xe9".encode("latin-1"), "not UTF-8 text (byte 3)")
    add("nul.txt", b"cats\0cats", "NUL")
    add("script.txt", b"%!PS-Adobe-3.0\n", "PostScript")
    with zipfile.ZipFile(folder / "word.txt", "w") as archive:
        archive.writestr("word/document.xml", "<w:t>cats</w:t>")
    reasons["word.txt"] = "ZIP"
    with closing(sqlite3.connect(folder / "database.txt")) as db, db:
        db.execute("CREATE TABLE cats (name)")
    reasons["database.txt"] = "SQLite"
    for name, content in (("real.pdf", PDF), ("real.ipynb", b"{}"), ("real.docx", b"PK"), ("real.odt", b"")):
        add(name, content, "a")
    return reasons


def test_what_is_no_text_is_skipped_in_a_folder_and_refused_by_name(tmp_path):
    reasons = make_binary_files(tmp_path)
    (tmp_path / "cats.md").write_text("Cats sleep. %PDF- is how a PDF begins.")
    (tmp_path / "data.json").write_text("not looked for")
    found, skipped = read(tmp_path)
    assert [path.name for path, _ in found] == ["cats.md"]
    assert skipped.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert reason in skipped[name]
        with pytest.raises(InputError, match="cannot be searched: it is") as refused:
            read(tmp_path / name)
        assert reason in str(refused.value)
    assert read(tmp_path / "data.json")[0][0][1] == "not looked for", "a file that is named is read whatever its suffix"


def test_what_is_no_regular_file_is_never_opened(tmp_path):
    (tmp_path / "cats.md").write_text("Cats sleep.")
    os.mkfifo(tmp_path / "fifo.md")
    (tmp_path / "link to fifo.md").symlink_to("fifo.md")
    (tmp_path / "device.md").symlink_to("/dev/zero")
    (tmp_path / "broken.md").symlink_to("nowhere.md")
    (tmp_path / "a.md").symlink_to("b.md")
    (tmp_path / "b.md").symlink_to("a.md")
    (tmp_path / "link to folder.md").symlink_to(tmp_path)
    (tmp_path / "up").symlink_to("..")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.md"))
        found, skipped = read(tmp_path)
    assert [path.name for path, _ in found] == ["cats.md"]
    special, broken = "not a regular file", "a broken link"
    assert skipped == {
        "fifo.md": special,
        "device.md": special,
        "socket.md": special,
        "broken.md": broken,
        "a.md": broken,
        "b.md": broken,
    }, "one file once, and links to folders are not followed"
    for name in ("device.md", "broken.md", "a.md", "socket.md"):
        with pytest.raises(InputError, match=f"{name} cannot be searched: it is (not a regular|a broken link)"):
            read(tmp_path / name)
    with pytest.raises(InputError, match="no file or folder"):
        read(tmp_path / "nothing")


def test_a_pipe_that_is_named_is_read(tmp_path):
    """As a shell's <(command) is."""
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("Cats sleep.",), daemon=True)
    writer.start()
    assert read(tmp_path / "pipe")[0] == [(tmp_path / "pipe", "Cats sleep.")]
    writer.join(30)


def test_a_huge_file_is_not_read(tmp_path, monkeypatch):
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(2**40)
    (tmp_path / "cats.md").write_text("Cats sleep.")
    found, skipped = read(tmp_path)
    assert [path.name for path, _ in found] == ["cats.md"]
    assert skipped == {"huge.txt": "larger than 64 MiB"}
    monkeypatch.setattr(text_files_module, "MAX_BYTES", 11)
    assert len(read(tmp_path / "cats.md")[0]) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_told_from_what_is_no_text(tmp_path):
    (tmp_path / "secret.md").write_text("Cats sleep.")
    (tmp_path / "secret.md").chmod(0)
    (tmp_path / "folder").mkdir(mode=0)
    found, skipped = read(tmp_path)
    (tmp_path / "folder").chmod(0o700)
    assert found == []
    assert skipped == dict.fromkeys(("secret.md", "folder"), "unreadable (Permission denied)")


def test_pictures_inside_a_text_are_left_out(tmp_path):
    picture = base64.b64encode(os.urandom(3000)).decode()
    (tmp_path / "a.md").write_text(f"Cats:\n![a cat](data:image/png;base64,{picture}) sleep.\n\nFish.")
    ((_, text),) = read(tmp_path)[0]
    assert text == "Cats:\n![a cat](data:image/png;base64,…) sleep.\n\nFish."


def search(*argv):
    command = [sys.executable, "-m", "moembed", "search", "--no-cache", *argv]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    return subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_not_utf8_are_readable(tmp_path):
    folder = os.fsencode(tmp_path)
    for name in (b"caf\xe9.md", b"line\nbreak \x1b[31m.md", "\u3000ünï 👩‍👩‍👧.md".encode()):
        with open(os.path.join(folder, name), "wb") as file:  # noqa: PTH118, PTH123 names in bytes
            file.write(b"Cats sleep.\n")
    with open(os.path.join(folder, b"\xff.txt"), "wb") as file:  # noqa: PTH118, PTH123
        file.write(b"\xff")
    names = [r"caf\xe9.md", r"line\nbreak \x1b[31m.md", "\u3000ünï 👩‍👩‍👧.md"]
    plain = search(folder, b"cats")
    assert plain.returncode == 0, plain.stderr
    lines = plain.stdout.decode().splitlines()
    assert {line[7:] for line in lines[::2]} == {f"{tmp_path}/{name}:1" for name in names}
    assert rf"{tmp_path}/\xff.txt (not UTF-8 text (byte 0))" in plain.stderr.decode()
    as_json = search(folder, b"cats", "--json")
    assert {json.loads(line)["path"] for line in as_json.stdout.decode().splitlines()} == {
        f"{tmp_path}/{name}" for name in names
    }
    named = search(os.path.join(folder, b"\xff.txt"), b"cats")  # noqa: PTH118
    assert named.returncode == 2
    assert b"Traceback" not in named.stderr


def test_the_summary_is_one_line(tmp_path, capsys):
    reasons = make_binary_files(tmp_path)
    (tmp_path / "cats.md").write_text("Cats sleep.")
    assert main(["search", str(tmp_path), "cats", "--no-cache"]) == 0
    summary, passages = capsys.readouterr().err.splitlines()
    assert summary.startswith(f"moembed: skipped files that are not text: {tmp_path}/ascii pdf.txt (a PDF document), ")
    assert summary.endswith(f" and {len(reasons) - 5} more")
    assert passages == "moembed: 1 passages, 1 embedded now"


@pytest.mark.parametrize("query", ["Tiếng Việt", "한국어 학교"])
def test_composed_and_decomposed_text_is_alike(tmp_path, capsys, query):
    answers = []
    for form in ("NFC", "NFD"):
        for asked in ("NFC", "NFD"):
            file = tmp_path / f"{form}.md"
            text = f"# {query}\n\n{query} là một ngôn ngữ.\n\nCats sleep.\n"
            file.write_text(unicodedata.normalize(form, text), "utf-8")
            assert main(["search", str(file), unicodedata.normalize(asked, query), "--json", "--no-cache"]) == 0
            records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
            answers.append([{**record, "path": ""} for record in records])
    assert all(answer == answers[0] for answer in answers)
    assert unicodedata.is_normalized("NFC", answers[0][0]["text"])


def test_readable_names():
    from pathlib import Path

    assert readable(Path("a b/ünï.md")) == str(Path("a b/ünï.md"))
    assert readable(Path("tab\there")) == r"tab\there"
