"""One file, a stream or a FIFO as the output, and what is missing without the extra."""

import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from moembed.stamps.stamp import KEY
from support.corpora import write_jsonl


@pytest.mark.parametrize("name", ["v.parquet", "v.arrow", "v.feather", "v.arrows", "v.jsonl", "v.csv"])
def test_single_files(embed, model, here, name):
    write_jsonl(here / "d.jsonl", [{"id": n, "text": f"text {n}", "k": "x"} for n in range(5)])
    assert embed("-i", "d.jsonl", "-o", name, "--id", "id", "--keep", "k", "--prompt", "") == (0, "")
    expected = model.encode([f"text {n}" for n in range(5)], prompt="", truncate_dim=8)
    if name.endswith(("jsonl", "csv")):
        text = Path(name).read_text()
        assert text.count("\n") == 5 + name.endswith("csv")
        return
    read = {"v.parquet": pq.read_table, "v.arrows": lambda path: pa.ipc.open_stream(path).read_all()}
    table = read.get(name, pyarrow.feather.read_table)(name)
    assert table["id"].to_pylist() == list(range(5))
    assert np.array_equal(np.array(table["embedding"].to_pylist(), np.float32), expected)
    assert KEY.encode() in table.schema.metadata


@pytest.mark.parametrize("torn", [b'{"index": 0, "id"', '{"text": "\u5317'.encode()[:-1], b'{"index": 0}'])
def test_a_torn_file_of_others_is_made_anew(embed, here, torn):
    """Half a line, half a character, or a line without its end, as a killed program leaves them that appends."""
    write_jsonl(here / "d.jsonl", [{"id": n, "text": f"text {n}"} for n in range(5)])
    assert embed("-i", "d.jsonl", "-o", "whole.jsonl") == (0, "")
    Path("v.jsonl").write_bytes(torn)
    assert embed("-i", "d.jsonl", "-o", "v.jsonl") == (0, "")
    assert Path("v.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()


@pytest.mark.parametrize("form", ["npy", "csv", "jsonl", "parquet", "arrow"])
def test_a_pipe_gets_a_right_file(embed, model, here, form):
    """A pipe has neither a place nor a size; the header of npy has the number of vectors."""
    write_jsonl(here / "d.jsonl", [{"text": f"text {n}"} for n in range(50)])
    assert embed("-i", "d.jsonl", "-o", f"file.{form}s" if form == "arrow" else f"file.{form}", "-f", form) == (0, "")
    os.mkfifo(here / "fifo")
    got = []
    reader = threading.Thread(target=lambda: got.append((here / "fifo").read_bytes()))
    reader.start()
    assert embed("-i", "d.jsonl", "-f", form, "-o", "fifo", "--on-error", "fail") == (0, "")
    reader.join(60)
    if form == "arrow":
        assert pa.ipc.open_stream(io.BytesIO(got[0])).read_all().num_rows == 50
    else:
        assert got[0] == (here / f"file.{form}").read_bytes()
    if form == "npy":
        assert np.load(io.BytesIO(got[0])).shape == (50, 8)


def test_single_files_need_places(embed, here):
    write_jsonl(here / "d.jsonl", [{"id": 1, "text": "a"}, {"id": 2, "text": None}])
    assert "needs a place for the rejected rows" in embed("-i", "d.jsonl", "-o", "v.parquet", "--on-error", "skip")[1]
    code, _ = embed("-i", "d.jsonl", "-o", "v.parquet", "--on-error", "skip", "--rejects", "r.jsonl")
    assert (code, json.loads(Path("r.jsonl").read_text())["row"]) == (3, 1)
    assert "d.jsonl:2" in embed("-i", "d.jsonl", "-o", "w.parquet")[1]
    assert not Path("w.parquet").exists()
    assert "holds vectors alone" in embed("-i", "d.jsonl", "-o", "v.npy", "--id", "id")[1]
    assert "--workers is for runs into a folder" in embed("-i", "d.jsonl", "-o", "v.parquet", "--workers", "2")[1]
    assert "unknown suffix .xlsx" in embed("-i", "d.jsonl", "--keep", "id=k", "-o", "v.xlsx")[1]
    assert "--rejects is for a single file" in embed("-i", "d.jsonl", "-o", "out/", "--rejects", "r")[1]


def test_an_arrow_stream_on_stdout_and_into_a_fifo(embed, here, monkeypatch):
    write_jsonl(here / "d.jsonl", [{"id": n, "text": f"text {n}"} for n in range(5)])
    written = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(written))
        assert embed("-i", "d.jsonl", "-f", "arrow") == (0, "")
        table = pa.ipc.open_stream(io.BytesIO(written.getvalue())).read_all()
    assert table["id"].to_pylist() == list(range(5))
    assert KEY.encode() in table.schema.metadata
    os.mkfifo(here / "fifo")
    got = []
    reader = threading.Thread(target=lambda: got.append((here / "fifo").read_bytes()))
    reader.start()
    assert embed("-i", "d.jsonl", "-f", "arrow", "-o", "fifo") == (0, "")
    reader.join(60)
    assert pa.ipc.open_stream(io.BytesIO(got[0])).read_all().equals(table)


def test_a_reader_that_stops_is_a_quiet_end(here):
    write_jsonl(here / "d.jsonl", [{"id": n, "text": f"text {n}", "k": "x" * 10_000} for n in range(300)])
    command = (
        f"{sys.executable} -m moembed embed -i d.jsonl --dim 8 -f arrow --keep k | head -c 10; exit ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", command], cwd=here, capture_output=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (141, b"")


def test_the_extra_is_named_where_it_is_missing(here, tmp_path):
    write_jsonl(here / "d.jsonl", [{"text": "a"}])
    (here / "d.jsonl.zst").write_bytes(b"(\xb5/\xfd")
    script = (
        "import sys\nfor name in ('pyarrow', 'zstandard'): sys.modules[name] = None\nfrom moembed.cli import main\n"
        "sys.exit(main(['embed', '-q', *sys.argv[1:]]))"
    )
    for arguments in (
        ["-i", "d.jsonl", "-o", "out/"],
        ["-i", "d.jsonl.zst", "-o", "v.jsonl"],
        ["-i", "s3://a/b", "-o", "v.jsonl"],
    ):
        done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
        assert done.returncode == 2
        assert 'pip install "moembed[data]"' in done.stderr
        assert done.stderr.count("\n") == 1
        assert not Path("out").exists()
    arguments = ["-i", "d.jsonl", "-o", "out/", "-f", "jsonl"]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr  # JSONL needs no package
