"""Standard streams that are closed, full, missing or not UTF-8: data or a message, never a traceback."""

import http.client
import io
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from moembed.cli import main
from moembed.progress import is_terminal, progress

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
EMBED = 'embed "a text" --dim 8'
LONG = f"embed '{'word ' * 600}' --overlong truncate --dim 8"


def shell(command, redirection, **environment):
    line = f"{shlex.quote(sys.executable)} -m moembed {command} {redirection}"
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, env=os.environ | environment)


def told(done):
    """The one sentence on stderr."""
    assert done.stdout == ""
    assert done.stderr.startswith("moembed: error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


@posix
@pytest.mark.parametrize("command", [EMBED + " -f npy", "info"])
def test_a_closed_stdout_is_an_error(command):
    done = shell(command, ">&-")
    assert (done.returncode, told(done)) == (2, "moembed: error: stdout is closed: redirect it to a file\n")


@posix
def test_a_closed_stdout_is_no_obstacle_to_a_file(tmp_path):
    done = shell(f"{EMBED} -o {shlex.quote(str(tmp_path / 'v.csv'))}", ">&- 2>&- <&-")
    assert done.returncode == 0
    assert (tmp_path / "v.csv").read_text().startswith("index,")


@full
@pytest.mark.parametrize(
    ("command", "unbuffered"), [(EMBED, ""), (EMBED + " -f npy", "1"), ("--help", ""), ("embed --help", "1")]
)
def test_a_full_stdout_is_an_error(command, unbuffered):
    done = shell(command, ">/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, told(done)) == (2, "moembed: error: cannot write to stdout: No space left on device\n")


@posix
@pytest.mark.parametrize(
    ("command", "code", "start", "redirection"),
    [
        (LONG, 0, '{"index": 0', "2>&-"),  # which says that it cut the text
        pytest.param(LONG, 0, '{"index": 0', "2>/dev/full", marks=full),
        ("embed x --dim 999", 2, None, "2>&-"),
        pytest.param("embed --no-such-option", 2, None, "2>/dev/full", marks=full),  # which is argparse's to say
    ],
)
def test_words_that_cannot_be_said_are_lost_and_nothing_else(command, code, start, redirection):
    done = shell(command, redirection)
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout.startswith(start) if start else done.stdout == ""


@posix
@pytest.mark.parametrize("redirection", [">&- 2>&-", "2>&-", "<&- >&- 2>&-"])
def test_words_of_c_libraries_do_not_get_into_a_file(tmp_path, redirection):
    """The next file that is opened would have the number of a closed stream."""
    script = (
        "import os\nfrom moembed.cli.streams import standard_streams\n"
        "with standard_streams(), open('data', 'w') as data:\n os.write(1, b'words')\n os.write(2, b'words')\n data.write('data')"
    )
    line = f"{shlex.quote(sys.executable)} -c {shlex.quote(script)} {redirection}"
    subprocess.run(["sh", "-c", line], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / "data").read_text() == "data"


@posix
def test_a_closed_stdin_is_told():
    assert "stdin is closed: pass texts as arguments" in told(shell("embed", "<&-"))
    assert shell(EMBED, "<&-").returncode == 0


@posix
def test_a_server_without_stderr_serves_and_logs_into_no_connection(tmp_path):
    path = tmp_path / "s"
    line = f"exec {shlex.quote(sys.executable)} -m moembed serve --unix-socket {shlex.quote(str(path))} <&- >&- 2>&-"
    process = subprocess.Popen(["sh", "-c", line])
    try:
        deadline = time.monotonic() + 120
        while True:
            connection = http.client.HTTPConnection("localhost")
            connection.sock = socket.socket(socket.AF_UNIX)
            try:
                connection.sock.connect(str(path))
                connection.request("POST", "/embed", json.dumps({"inputs": "x", "prompt_name": "query"}))
                response = connection.getresponse()
                answer = response.read()
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
                continue
            finally:
                connection.close()
            if response.status != 503:  # still loading
                break
            time.sleep(0.05)
        assert response.status == 200
        assert len(json.loads(answer)[0]) == 384
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [None, object(), closed()], ids=["none", "no method", "closed"])
def test_the_python_face_needs_no_stderr(model, monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    assert not is_terminal(stream)
    assert model.encode_document(["a"]).shape == (1, 384)
    assert model.encode_document(["a"], show_progress_bar=True).shape == (1, 384)


@full
def test_a_bar_on_a_full_stderr_ends_nothing(monkeypatch):
    stream = Path("/dev/full").open("w")  # noqa: SIM115 - closed below, which fails
    monkeypatch.setattr(sys, "stderr", stream)
    with progress(3, "text", show=True) as advance:
        advance(3)
    with pytest.raises(OSError, match="No space"):
        stream.close()


def test_none_instead_of_streams(monkeypatch, tmp_path):
    """As pythonw has it."""
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert main(["embed"]) == 2
    assert main(["embed", "x"]) == 2
    assert main(["embed", "x", "--overlong", "truncate", "-o", str(tmp_path / "v.npy")]) == 0
    for argv, code in (["--help"], 0), (["--nonsense"], 2):
        with pytest.raises(SystemExit) as stop:
            main(argv)
        assert stop.value.code == code
    assert sys.stderr is None


@pytest.mark.usefixtures("opened_once")
@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-16"])
@pytest.mark.parametrize(
    "argv",
    [
        ("embed", "北ß", "--dim", "8"),
        ("embed", "北ß", "--dim", "8", "-f", "csv"),
        ("similarity", "北ß", "b", "c"),
        ("similarity", "北ß", "b", "--json"),
        ("search", "SOURCE", "capital", "--json"),
        ("search", "SOURCE", "capital"),
        ("info",),
        ("embed", "--help"),
    ],
)
def test_stdout_is_utf8_whatever_its_encoding_was(monkeypatch, tmp_path, encoding, argv):
    (tmp_path / "城市.txt").write_text("The capital is 北京, ß.\n", "utf-8")
    argv = [str(tmp_path) if part == "SOURCE" else part for part in argv]
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, errors="strict"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace"))
    with suppress(SystemExit):  # of --help
        assert main(argv) == 0
    text = raw.getvalue().decode("utf-8")
    if "北ß" in argv or "search" in argv:
        assert "北" in text
        assert "ß" in text
    if "--json" in argv and "search" in argv:
        assert json.loads(text)["path"].endswith("城市.txt")


@posix
def test_a_real_process_in_the_c_locale():
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "cp1252:strict"}
    done = subprocess.run(
        [sys.executable, "-m", "moembed", "embed", "--dim", "8"],
        input="北ß\n".encode(),
        capture_output=True,
        env=os.environ | environment,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout.decode("utf-8"))["text"] == "北ß"


def test_words_survive_an_encoding_that_lacks_them(monkeypatch, tmp_path):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="ascii", errors="backslashreplace"))
    assert main(["embed", "-i", str(tmp_path / "北.txt")]) == 2
    assert b"\\u5317.txt cannot be read" in raw.getvalue()
