"""Formats of the input: every one gives the same vectors, and cut or empty files are told."""

import gzip
import hashlib
import io
import json
import os
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import zstandard

from moembed.cli import main
from moembed.errors import InputError
from support.corpora import write_jsonl

TEXTS = ["a cat", "NA", "null", "None", "nan", "n/a", "-", "TRUE", "1.0", "b\r\nc, ", 'd "quoted"', "é 北 😀", ""]
RECORDS = [{"id": f"k{number}", "text": text} for number, text in enumerate(TEXTS)]


def write_csv(path, delimiter=",", start=""):
    import csv

    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(start)
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["id", "text"])
        writer.writerows([record["id"], record["text"]] for record in RECORDS)


def write(path):
    """The texts in the format of a name."""
    table = pa.Table.from_pylist(RECORDS)
    name = path.name
    if name.endswith(".parquet"):
        pq.write_table(table, path, row_group_size=5)
    elif name.endswith((".feather", ".arrow")):
        pyarrow.feather.write_feather(table, path, chunksize=4)
    elif name.endswith(".arrows"):
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, 4)
    elif name.endswith((".csv", ".tsv")):
        write_csv(path, "\t" if name.endswith("tsv") else ",")
    else:
        content = "".join(json.dumps(record) + "\n\n" for record in RECORDS).encode()
        pack = gzip.compress if name.lower().endswith("gz") else zstandard.compress if name.endswith("zst") else bytes
        path.write_bytes(pack(content))


@pytest.mark.parametrize(
    "name",
    "d.jsonl d.ndjson d.jl d.JSONL.GZ d.jsonl.zst d.parquet d.feather d.arrow d.arrows d.csv d.tsv".split(),
)
def test_every_format_gives_the_same(rows, here, model, name):
    write(here / name)
    found = rows("-i", name, "--prompt", "", "--id", "id", "--shard-rows", 5)
    assert [(row["index"], row["id"]) for row in found] == [(i, f"k{i}") for i in range(len(TEXTS))]
    vectors = np.array([row["embedding"] for row in found], np.float32)
    assert np.array_equal(vectors, model.encode(TEXTS, prompt="", truncate_dim=8))


def test_lines(rows, here, model):
    (here / "d.txt").write_bytes(b"\xef\xbb\xbfa\r\n\nb")
    found = rows("-i", "d.txt", "--prompt", "")
    assert "id" not in found[0]
    expected = model.encode(["a", "", "b"], prompt="", truncate_dim=8)
    assert np.array_equal(np.array([row["embedding"] for row in found], np.float32), expected)


def test_csv_of_spreadsheets(rows, refused, here):
    write_csv(here / "a.csv", ";", "\ufeff")
    write_csv(here / "b.csv", ";", "sep=;\r\n")
    expected = [(row["id"], row["embedding"]) for row in rows("-i", "a.csv")]
    assert [own for own, _ in expected] == [record["id"] for record in RECORDS]
    assert [(row["id"], row["embedding"]) for row in rows("-i", "b.csv", "--force")] == expected
    assert "a.csv:1: expected a column 'body', found 'id', 'text'" in refused("-i", "a.csv", "--field", "body")


@pytest.mark.parametrize("name", ["d.csv", "d.csv.gz"])
def test_quoted_line_breaks_at_every_edge(run, here, monkeypatch, name):
    """Rows are the same whatever shards, blocks, marks, workers and slices there are.

    The ids make the file longer than what is read at a time.
    """
    from moembed.corpus import inventory, rows

    count = 4000
    write_csv(here / "d")
    head, _, body = (here / "d").read_bytes().partition(b"\r\n")
    body += (b'"0' + b'\r\n""' * 90 + b'","a\r\nb, ""c"""\r\n') * (count - len(TEXTS))
    assert 0.8 * len(body) > inventory._PIECE, "shards begin behind what is read at a time"
    (here / name).write_bytes((gzip.compress if name.endswith("gz") else bytes)(head + b"\r\n" + body))
    options = {"keep": (("text", "kept"),), "dim": 1}
    run(name, "whole", shard_rows=count, **options)
    whole = pq.read_table("whole")
    assert whole["kept"].to_pylist() == [*TEXTS, *['a\r\nb, "c"'] * (count - len(TEXTS))]
    run(name, "workers", shard_rows=1201, workers=2, **options)
    for module, constant, value in ((inventory, "_MARK_ROWS", 7), (rows, "BLOCK_ROWS", 101), (rows, "_READ_ROWS", 3)):
        monkeypatch.setattr(module, constant, value)
    for part in range(3):
        run(name, "sliced", shard_rows=501, slice=(part, 3), **options)
    for other in ("workers", "sliced"):
        assert pq.read_table(other).equals(whole)


@pytest.mark.parametrize(
    "name", ["d.jsonl", "d.jsonl.gz", "d.jsonl.zst", "d.parquet", "d.feather", "d.arrows", "d.csv"]
)
def test_cut_files_are_errors_whatever_is_skipped(refused, here, name):
    write(here / name)
    whole = (here / name).read_bytes()
    # The end of a CSV file within its last cell cannot be told.
    for cut in (whole[:-20], whole[: whole.index(b"quoted") + 2 if name == "d.csv" else len(whole) // 2 - 3]):
        (here / name).write_bytes(cut)
        message = refused("-i", name, "--on-error", "skip")
        assert f"error: {name}" in message
        assert any(word in message for word in ("cut", "unexpected end of data"))


@pytest.mark.parametrize("name", ["d.jsonl", "d.jsonl.gz", "d.jsonl.zst", "d.csv.gz", "d.tsv.zst"])
def test_a_cut_file_is_told_with_its_last_whole_line(refused, here, name):
    digits = [hashlib.sha256(b"%d" % number).hexdigest() for number in range(20_000)]
    line = '{"text": "%s"}\n' if "jsonl" in name else "%s\n"
    content = "".join(["" if "jsonl" in name else "text\n", *(line % text for text in digits)]).encode()
    pack, unpack = bytes, io.BytesIO
    if name.endswith(".gz"):
        pack, unpack = gzip.compress, lambda data: io.BytesIO(zlib.decompressobj(31).decompress(data))
    elif name.endswith(".zst"):
        pack = zstandard.compress
        unpack = lambda data: io.BytesIO(zstandard.ZstdDecompressor().decompressobj().decompress(data))  # noqa: E731
    whole = pack(content)
    for share in (0.99, 0.4):
        cut = whole[: int(len(whole) * share) - 5]
        (here / name).write_bytes(cut)
        lines = unpack(cut).read().count(b"\n")
        assert lines > 1000
        assert f" cut after line {lines}: " in refused("-i", name, "--on-error", "skip")


def test_a_file_that_is_cut_while_a_run_reads_it_is_told(run, here, monkeypatch):
    from moembed.corpus import inventory, runs

    monkeypatch.setattr(inventory, "_MARK_ROWS", 4)
    (here / "d.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' * 40))
    record = runs.settle_record

    def settled(*arguments, **options):
        (here / "d.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' * 15))
        return record(*arguments, **options)

    monkeypatch.setattr(runs, "settle_record", settled)
    with pytest.raises(InputError, match=r"d\.jsonl\.gz has fewer rows than when this run began"):
        run("d.jsonl.gz", shard_rows=10)
    assert [path.name for path in (here / "out").glob("*.parquet")] == ["rows-000000000000.parquet"]


@pytest.mark.parametrize("name", ["d.jsonl.gz", "d.jsonl.zst", "d.parquet", "d.arrow"])
def test_empty_files_of_formats_with_a_head_are_errors(refused, here, name):
    (here / name).touch()
    assert f"error: {name}" in refused("-i", name)


@pytest.mark.parametrize("name", ["d.jsonl", "d.csv", "d.parquet", "d.arrow"])
@pytest.mark.parametrize("form", ["parquet", "jsonl", "csv", "npy", "arrow"])
def test_no_rows(embed, run, here, name, form):
    if name == "d.jsonl":
        (here / name).touch()
    elif name == "d.csv":
        (here / name).write_text("id,text\n")
    elif name == "d.parquet":
        pq.write_table(pa.table({"id": pa.array([], pa.string()), "text": pa.array([], pa.string())}), here / name)
    else:
        pyarrow.feather.write_feather(
            pa.table({"id": pa.array([], pa.string()), "text": pa.array([], pa.string())}), name
        )
    assert embed("-i", name, "-o", "out/", "-f", form, "--shard-rows", 10, "--prompt", "") == (0, "")
    result = run(name, form=form)
    assert (result.counts.rows, result.kept) == (0, (0,))
    path = here / "out" / f"rows-000000000000.{form}"
    if form in ("parquet", "arrow"):
        table = pq.read_table(path) if form == "parquet" else pyarrow.feather.read_table(path)
        assert table.schema.field("embedding").type.list_size == 8
        assert b"moembed.stamp" in table.schema.metadata
        assert len(table) == 0
    if form == "npy":
        assert np.load(here / "out" / "rows-000000000000.npy").shape == (0, 8)


def test_stdin_and_fifos_are_inputs_too(embed, here, monkeypatch):
    import io
    import sys
    import threading

    write_jsonl(here / "d.jsonl", RECORDS)
    data = (here / "d.jsonl").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert embed("--input-format", "jsonl", "-o", "out/")[0] == 0
    os.mkfifo(here / "fifo")
    thread = threading.Thread(target=lambda: (here / "fifo").write_bytes(data))
    thread.start()
    assert embed("-i", "fifo", "--input-format", "jsonl", "-o", "fifo-out/")[0] == 0
    thread.join()
    assert pq.read_table("out").equals(pq.read_table("fifo-out"))
    assert not list((here / "out" / "_moembed" / "partial").iterdir())


def test_texts_in_the_command_line_are_no_corpus(capsys, here):
    assert main(["embed", "a", "--workers", "2"]) == 2
    assert "pass -i FILE for a corpus" in capsys.readouterr().err
