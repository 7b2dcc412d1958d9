"""Command line: output, exit codes and messages of each command."""

import csv
import io
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from moembed.cli import main, parser

COMMANDS = (
    "embed",
    "search",
    "similarity",
    "export",
    "quantize",
    "verify",
    "evaluate",
    "info",
    "gather",
    "train",
    "ship",
    "card",
    "doctor",
)


@pytest.fixture
def cli(capsys, monkeypatch, opened_once):
    """Run a command in-process; gives (exit code, stdout, stderr)."""

    def run(*argv, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            code = main([str(a) for a in argv])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


def moembed(*argv, **options):
    return subprocess.Popen([sys.executable, "-m", "moembed", *map(str, argv)], **options)


def test_help_is_complete(cli):
    code, out, _ = cli("--help")
    assert code == 0
    for command in COMMANDS:
        assert command in out
        sub_code, sub_out, _ = cli(command, "--help")
        assert sub_code == 0
        assert "usage: moembed" in sub_out
    for exit_code in ("0 ", "1 ", "2 ", "130", "141"):
        assert exit_code in out


def test_every_option_is_explained():
    for action in parser()._subparsers._group_actions:
        for name, command in action.choices.items():
            assert all(option.help for option in command._actions), name


def test_embed_arguments(cli, model):
    code, out, err = cli("embed", "hello", "world")
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert [r["text"] for r in rows] == ["hello", "world"]
    expected = model.encode_document(["hello", "world"])
    assert np.array_equal(np.array([r["embedding"] for r in rows], np.float32), expected), (
        "json keeps every bit of a float32"
    )
    assert rows[0] == {"index": 0, "text": "hello", "tokens": 6, "truncated": False, "embedding": rows[0]["embedding"]}


def test_embed_tasks(cli, model):
    def vector(*argv):
        return np.array(json.loads(cli("embed", "x", *argv)[1])["embedding"], np.float32)

    assert np.array_equal(vector("--task", "query"), model.encode_query("x"))
    assert np.array_equal(vector("--task", "passage"), model.encode_document("x"))
    assert np.array_equal(vector("--prompt", ""), model.encode("x", prompt=""))
    assert np.array_equal(vector("--task", "query", "--dim", "64"), model.encode_query("x", truncate_dim=64))
    code, out, err = cli("embed", "x", "--task", "nope")
    assert (code, out) == (2, "")
    assert "no prompt named 'nope'; this model has passage, query" in err


def test_embed_stdin_lines(cli):
    _, out, _ = cli("embed", stdin="\ufeffeins\r\nzwei\n\ndrei".encode())
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["eins", "zwei", "", "drei"]
    code, out, err = cli("embed", stdin=b"fine\nb\xe4d\n")
    assert code == 2
    assert "stdin:2: not UTF-8 at byte 1" in err


def test_embed_files(cli, tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b.jsonl").write_text('{"body": "three"}\n{"body": "four", "n": 1}\n')
    _, out, _ = cli("embed", "zero", "-i", tmp_path / "a.txt", "-i", tmp_path / "b.jsonl", "--field", "body")
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["zero", "one", "two", "three", "four"]
    for content in ('{"body": 3}', "[]", "{", '{"text": "x"}'):
        (tmp_path / "c.jsonl").write_text(content)
        code, _, err = cli("embed", "-i", tmp_path / "c.jsonl", "--field", "body")
        assert code == 2
        assert "c.jsonl:1" in err
    assert "cannot be read" in cli("embed", "-i", tmp_path / "missing.txt")[2]
    np.save(tmp_path / "v.npy", np.ones(3))
    assert "v.npy:1: not UTF-8" in cli("embed", "-i", tmp_path / "v.npy")[2]


@pytest.mark.parametrize("count", [0, 1, 130])
def test_npy_output(cli, model, tmp_path, count):
    texts = [f"text {i}" for i in range(count)]
    code, out, _ = cli("embed", "-o", tmp_path / "v.npy", stdin="\n".join(texts).encode())
    assert (code, out) == (0, "")
    loaded = np.load(tmp_path / "v.npy", allow_pickle=False)
    assert np.array_equal(loaded, model.encode_document(texts))
    assert loaded.shape == (count, model.dim)


def test_other_formats(cli, model, tmp_path):
    _, out, _ = cli("embed", "a", 'b, "c"', "--format", "csv", "--dim", "8")
    header, *rows = csv.reader(io.StringIO(out))
    assert header == ["index", "id", "text", "tokens", "truncated", "scale", *(f"d{i}" for i in range(8))]
    assert [row[2] for row in rows] == ["a", 'b, "c"']
    assert np.allclose(np.array(rows[0][6:], np.float32), model.encode_document("a", truncate_dim=8))
    cli("embed", "a", "--precision", "int8", "-o", tmp_path / "v.npy")
    assert np.load(tmp_path / "v.npy").dtype == np.int8
    record = json.loads(cli("embed", "a", "--precision", "int8")[1])
    back = np.array(record["embedding"]) * record["scale"]
    assert np.abs(back - model.encode_document("a")).max() <= record["scale"]


def test_overlong_texts(cli):
    text = "word " * 700
    code, out, err = cli("embed", text)
    assert (code, out) == (2, "")
    assert "moembed: error: text 0 has" in err
    _, out, err = cli("embed", text, "--overlong", "truncate")
    assert json.loads(out)["truncated"]
    assert "1 texts were cut to 512 tokens" in err
    rows = [json.loads(line) for line in cli("embed", text, "--overlong", "chunk")[1].splitlines()]
    assert len(rows) == 2
    assert rows[0]["end"] > rows[1]["start"] > 0
    assert len(cli("embed", text, "--overlong", "mean")[1].splitlines()) == 1


def test_output_is_complete_or_absent(cli, tmp_path):
    out = tmp_path / "v.jsonl"
    out.write_text("precious")
    code, _, err = cli("embed", "-o", out, stdin=("fine\n" * 80 + "word " * 700).encode())
    assert code == 2
    assert "text 80 has" in err
    assert out.read_text() == "precious"
    assert [p.name for p in tmp_path.iterdir()] == ["v.jsonl"]
    assert cli("embed", "x", "-o", tmp_path / "no" / "such" / "v.npy")[0] == 2
    assert "cannot write" in cli("embed", "x", "-o", tmp_path)[2]


def test_similarity(cli):
    code, out, _ = cli("similarity", "the cat sleeps", "the cat sleeps")
    assert (code, out) == (0, "1.0000\n")
    rows = cli("similarity", "a", "b", "c")[1].splitlines()
    assert len(rows) == 3
    assert rows[2].endswith("\tc")
    matrix = json.loads(cli("similarity", "a", "b", "--json")[1])["similarity"]
    assert matrix[0][0] == pytest.approx(1, abs=1e-5)
    assert cli("similarity", "alone")[0] == 2


def test_info(cli, bundle, model):
    code, out, _ = cli("info")
    assert code == 0
    for fact in (
        "512 tokens",
        "384 dimensions",
        "8 experts, top-2",
        "'query: '",
        model.bundle.manifest.source.weights_sha256,
    ):
        assert fact in out
    assert json.loads(cli("info", bundle.folder, "--json")[1])["hidden_size"] == 48
    code, _, err = cli("info", "/nowhere")
    assert code == 2
    assert err.startswith("moembed: error: no folder /nowhere")


def test_doctor(cli, monkeypatch, tmp_path):
    code, out, _ = cli("doctor")
    assert code == 0
    for fact in ("CPUExecutionProvider", "portable", "onnxruntime 1.", "works"):
        assert fact in out
    from moembed.pull import opening

    monkeypatch.setattr(opening, "DEFAULT_FOLDER", tmp_path)
    code, out, _ = cli("doctor", "--json")
    assert code == 1
    assert "not a bundle" in json.loads(out)["problems"][0]


def test_export_and_verify(cli, checkpoint, tmp_path):
    out = tmp_path / "bundle"
    code, printed, words = cli("export", checkpoint, "-o", out)
    assert (code, printed) == (0, f"{out}\n")
    assert "tracing" in words
    assert cli("export", checkpoint, "-o", out)[0] == 2
    code, printed, _ = cli("verify", out, "--against", checkpoint, "--texts", "3", "--json")
    report = json.loads(printed)
    assert (code, report["passed"]) == (0, True)
    assert [p["reference"] for p in report["parity"]] == ["torch", "numpy"]
    assert report["stability"]["differing"] == 0
    assert report["parity"][1]["routing"]["1"]["tokens"] == report["parity"][1]["tokens"]


def test_verify_fails_on_another_checkpoint(cli, bundle, tmp_path):
    from support.checkpoints import small_config, write_checkpoint

    other = write_checkpoint(tmp_path / "other", small_config(), seed=99)
    code, out, _ = cli("verify", bundle.folder, "--against", other, "--texts", "2")
    assert code == 1
    assert "FAIL" in out
    assert "the bundle was made from weights" in out
    assert "hidden states differ" in out


def test_verify_notices_an_altered_file(cli, bundle, tmp_path):
    copy = shutil.copytree(bundle.folder, tmp_path / "copy")
    content = bytearray((copy / "onnx" / "model.onnx_data").read_bytes())
    content[4096] ^= 1
    (copy / "onnx" / "model.onnx_data").write_bytes(content)
    code, _, err = cli("verify", copy)
    assert code == 2
    assert "altered" in err


def test_wrong_usage_is_exit_code_2(cli):
    for argv in ([], ["nonsense"], ["embed", "x", "--dim", "many"], ["search", "README.md"], ["export", "x"]):
        assert cli(*argv)[0] == 2
    assert cli("embed", "x", "--provider", "cuda")[0] == 2
    assert "--dim 769" in cli("embed", "x", "--dim", "769")[2]


def test_a_broken_pipe_is_silent():
    process = moembed("embed", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    process.stdin.write(b"some text\n" * 300)
    process.stdin.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


def test_ctrl_c_is_clean(tmp_path):
    out = tmp_path / "v.npy"
    process = moembed("embed", "-o", out, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write(b"some text\n" * 64)
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == b"moembed: interrupted\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_an_ignored_ctrl_c_stays_ignored(tmp_path):
    """As of a command that a script starts with `&`, and others than the shell mean to interrupt."""
    line = f"trap '' INT; exec {shlex.quote(sys.executable)} -m moembed embed -q --dim 8 -o out/"
    process = subprocess.Popen(["sh", "-c", line], cwd=tmp_path, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write(b"some text\n")
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert list((tmp_path / "out").glob("rows-*"))


def test_the_script_is_installed():
    script = shutil.which("moembed", path=Path(sys.executable).parent)
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("moembed 0.")
