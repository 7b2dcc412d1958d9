"""`-o` writes to the target of the path, and replaces only regular files."""

import io
import json
import os
import shlex
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from moembed.cli import main
from moembed.errors import OutputError
from moembed.files.destination import writing

if sys.platform == "win32":
    pytest.skip("what these tests write to is POSIX", allow_module_level=True)


@pytest.fixture
def embed(capsys):
    """Embed 'hi' into a destination; gives (exit code, stdout, stderr)."""

    def run(output, *options, texts=("hi",)):
        code = main(["embed", *texts, "--dim", "8", "-o", str(output), *options])
        return code, *capsys.readouterr()

    return run


def text_of(path):
    return json.loads(path.read_text("utf-8"))["text"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("form", ["jsonl", "npy", "csv"])
def test_a_device_stays_a_device(embed, tmp_path, form):
    assert embed("/dev/null", "-f", form) == (0, "", "")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    (tmp_path / "link").symlink_to("/dev/null")
    assert embed(tmp_path / "link", "-f", form) == (0, "", "")
    assert (tmp_path / "link").is_symlink()
    if Path("/dev/full").exists():
        message = "moembed: error: cannot write /dev/full: No space left on device\n"
        assert embed("/dev/full", "-f", form) == (2, "", message)


@pytest.mark.parametrize("form", ["jsonl", "npy"])
def test_a_fifo_is_written_to(embed, model, tmp_path, form):
    path, got = tmp_path / "fifo", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()))
    reader.start()
    assert embed(path, "-f", form) == (0, "", "")
    reader.join(60)
    assert stat.S_ISFIFO(path.stat().st_mode)
    expected = model.encode_document(["hi"], truncate_dim=8)
    found = np.load(io.BytesIO(got[0])) if form == "npy" else [json.loads(got[0])["embedding"]]
    assert np.array_equal(np.asarray(found, np.float32), expected)
    assert names(tmp_path) == ["fifo"]


def test_a_fifo_whose_reader_goes_is_a_broken_pipe(embed, tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: path.open("rb").close())
    reader.start()
    code, _, err = embed(path, texts=["x"] * 400)
    reader.join(60)
    assert (code, err) == (141, "")


def test_process_substitution(tmp_path):
    """/dev/fd/N, and npy on stdout."""
    command = f"{shlex.quote(sys.executable)} -m moembed embed hi --dim 8"
    script = (
        f"{command} -o >(cat >a.jsonl; echo >done); until [ -e done ]; do sleep 0.02; done; {command} -f npy >v.npy"
    )
    subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True)
    vector = json.loads((tmp_path / "a.jsonl").read_text())["embedding"]
    assert np.array_equal(np.load(tmp_path / "v.npy"), np.array([vector], np.float32))


@pytest.mark.parametrize("form", ["jsonl", "npy"])
def test_stdout_by_its_path_is_written_where_it_stands(tmp_path, form):
    log = tmp_path / "log"
    log.write_text("before\n")
    (tmp_path / "link").symlink_to("/dev/stdout")
    for output in ("/dev/stdout", str(tmp_path / "link"), "-"):
        with log.open("ab") as appended:
            command = [sys.executable, "-m", "moembed", "embed", "hi", "--dim", "8", "-f", form, "-o", output]
            subprocess.run(command, stdout=appended, check=True)
        if form == "npy":
            break
    content = log.read_bytes()
    assert content.startswith(b"before\n")
    if form == "npy":
        assert np.load(io.BytesIO(content[7:])).shape == (1, 8)
    else:
        assert [json.loads(line)["text"] for line in content.splitlines()[1:]] == ["hi"] * 3
    assert names(tmp_path) == ["link", "log"]


def test_a_dash_is_stdout(embed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = embed("-")
    assert (code, json.loads(out)["text"], err) == (0, "hi", "")
    assert embed("-", "-f", "csv")[1].startswith("index,id,text,")
    assert embed("./-")[:2] == (0, "")
    assert names(tmp_path) == ["-", "-.stamp.json"]


def test_npy_is_not_for_a_terminal(tmp_path):
    terminal, end = os.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "moembed", "embed", "hi", "-f", "npy"], stdout=end, stderr=subprocess.PIPE, text=True
    )
    os.close(end)
    os.close(terminal)
    assert done.returncode == 2
    assert "npy cannot be written to a terminal: pass -o vectors.npy" in done.stderr


def test_a_symbolic_link_is_followed(embed, tmp_path):
    (tmp_path / "there").mkdir()
    target, link, chain, dangling, loop = (
        tmp_path / name for name in ("there/t.jsonl", "link", "chain", "dangling", "loop")
    )
    target.write_text("old")
    link.symlink_to("there/t.jsonl")
    chain.symlink_to("link")
    dangling.symlink_to("there/new.jsonl")
    loop.symlink_to("loop")
    assert embed(chain) == (0, "", "")
    assert text_of(target) == "hi"
    assert embed(dangling) == (0, "", "")
    assert text_of(tmp_path / "there" / "new.jsonl") == "hi"
    assert all(path.is_symlink() for path in (link, chain, dangling))
    code, _, err = embed(loop)
    assert (code, err.count("\n")) == (2, 1)
    assert "cannot write" in err
    assert names(tmp_path / "there") == ["new.jsonl", "t.jsonl"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755])
def test_a_file_keeps_its_mode(embed, tmp_path, mode):
    path = tmp_path / "v.csv"
    path.touch()
    path.chmod(mode)
    assert embed(path) == (0, "", "")
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.read_text().startswith("index,")


def test_a_new_file_has_the_mode_of_the_umask(embed, tmp_path):
    before = os.umask(0o027)
    try:
        embed(tmp_path / "v.csv")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "v.csv").stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_keeps_its_owner(embed, tmp_path):
    path = tmp_path / "v.csv"
    path.touch()
    os.chown(path, 1234, 2345)
    embed(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)


@pytest.mark.skipif(sys.platform != "linux", reason="extended attributes by Linux' calls")
def test_a_file_keeps_its_attributes(embed, tmp_path):
    path = tmp_path / "v.csv"
    path.touch()
    try:
        os.setxattr(path, "user.note", b"mine")
    except OSError as error:
        pytest.skip(str(error))
    embed(path)
    assert os.getxattr(path, "user.note") == b"mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_read_only_file_is_left_alone(embed, tmp_path):
    path = tmp_path / "v.csv"
    path.write_text("precious")
    path.chmod(0o400)
    assert "it is read-only" in embed(path)[2]
    assert path.read_text() == "precious"


def test_what_cannot_be_written_is_told(embed, tmp_path):
    folder, path = tmp_path / "folder", tmp_path / "socket"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        for output, reason in (
            (folder, "it is a folder; name a file"),
            (path, "No such device or address"),
            (tmp_path / "no" / "v", "choose a folder that exists and is writable"),
            (tmp_path / ("x" * 300), "File name too long"),
            ("/dev/fd/987", "Bad file descriptor"),
        ):
            code, out, err = embed(output)
            assert (code, out) == (2, "")
            assert err.startswith("moembed: error: cannot write ")
            assert reason in err
    assert names(tmp_path) == ["folder", "socket"]


@pytest.mark.parametrize(
    "name", ["y.parquet", "y.json", "y.npz", "y.tsv", "y.csv.gz", "y.JSONL.zst", "y.txt", "y.2024"]
)
def test_an_unknown_suffix_is_an_error(embed, tmp_path, name):
    code, out, err = embed(tmp_path / name)
    assert (code, out) == (2, "")
    assert f"unknown suffix .{name.rpartition('.')[2].lower()}; use .jsonl, .npy or .csv" in err
    assert names(tmp_path) == []
    assert embed(tmp_path / name, "-f", "jsonl") == (0, "", "")
    assert text_of(tmp_path / name) == "hi"


@pytest.mark.parametrize("name", ["v", "v.jsonl", "v.JSONL", "v.ndjson", ".jsonl"])
def test_names_of_jsonl(embed, tmp_path, name):
    assert embed(tmp_path / name) == (0, "", "")
    assert text_of(tmp_path / name) == "hi"


def test_a_long_name_leaves_room_for_the_temporary_one(embed, tmp_path):
    name = "x" * 249 + ".jsonl"
    code, _, err = embed(tmp_path / name)
    assert (code, names(tmp_path)) == (0, [name])
    assert f"{name} is complete, but has no stamp: cannot write" in err


def test_an_error_while_a_file_is_written_keeps_its_name(tmp_path):
    """An OutputError of something else is not taken for one of this file's."""
    with pytest.raises(OutputError, match="^another thing$"), writing(tmp_path / "a"):
        raise OutputError("another thing")
    assert names(tmp_path) == []


def test_evaluate_mixes_nothing_into_its_table(capsys):
    assert main(["evaluate", "x", "--json", "-"]) == 2
    assert "stdout is reserved for the table" in capsys.readouterr().err
