"""What comes in: every format gives the same vectors, and every row its own place, id and reason."""

import gzip
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import zstandard

from moembed.cli import main
from support.corpora import rejects, write_jsonl

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


def test_a_template_reads_escapes_and_is_told_apart(rows, here, model):
    write_jsonl(
        here / "d.jsonl", [{"title": None, "text": "a"}, {"text": "a"}, {"title": 3, "text": "a {b}"}, {"x": 1}]
    )
    found = rows("-i", "d.jsonl", "--template", r"{title}\n{text}", "--prompt", "", "--on-error", "skip", code=3)
    expected = model.encode(["\na", "\na", "3\na {b}"], prompt="", truncate_dim=8)
    assert np.array_equal(np.array([row["embedding"] for row in found], np.float32), expected)
    assert rejects(here / "out")[0]["reason"].startswith("none of the template's fields")


def test_a_template_field_that_no_row_has_is_refused(refused, here):
    write_jsonl(here / "d.jsonl", [{"title": "a", "text": "b"}])
    assert "no row has the field 'titel'; found 'text', 'title'" in refused(
        "-i", "d.jsonl", "--template", "{titel} {text}"
    )
    assert "not both" in refused("-i", "d.jsonl", "--template", "{text}", "--field", "text")


def test_csv_of_spreadsheets(rows, refused, here):
    write_csv(here / "a.csv", ";", "\ufeff")
    write_csv(here / "b.csv", ";", "sep=;\r\n")
    expected = [(row["id"], row["embedding"]) for row in rows("-i", "a.csv")]
    assert [own for own, _ in expected] == [record["id"] for record in RECORDS]
    assert [(row["id"], row["embedding"]) for row in rows("-i", "b.csv", "--force")] == expected
    assert "a.csv:1: expected a column 'body', found 'id', 'text'" in refused("-i", "a.csv", "--field", "body")


def test_quoted_line_breaks_at_every_edge(run, here):
    """Rows are the same whatever shards, workers and slices there are."""
    write_csv(here / "d.csv")
    lines = (here / "d.csv").read_bytes()
    head, _, body = lines.partition(b"\r\n")
    (here / "d.csv").write_bytes(head + b"\r\n" + body * 8)
    run("d.csv", "whole", shard_rows=1000, keep=(("text", "kept"),))
    run("d.csv", "cut", shard_rows=7, keep=(("text", "kept"),))
    whole, cut = pq.read_table("whole"), pq.read_table("cut")
    assert whole.equals(cut)
    assert whole["kept"].to_pylist() == TEXTS * 8
    for part in range(3):
        run("d.csv", "sliced", shard_rows=7, keep=(("text", "kept"),), slice=(part, 3))
    assert pq.read_table("sliced").equals(whole)


def test_unused_fields_never_matter_and_kept_ones_have_one_form(run, refused, here):
    metas = [{"a": 1}, "s", 3, None]
    write_jsonl(here / "d.jsonl", [{"text": f"{i}", "meta": meta} for i, meta in enumerate(metas)] + [{"text": "e"}])
    run("d.jsonl", "unused")
    message = refused("-i", "d.jsonl", "--keep", "meta")
    assert "the kept column 'meta' is an object in d.jsonl:1, and a string in d.jsonl:2" in message
    run("d.jsonl", "json", keep=(("meta", "meta"),), form="jsonl")
    found = [json.loads(line) for line in (here / "json" / "rows-000000000000.jsonl").read_text().splitlines()]
    assert [row["meta"] for row in found] == [*metas, None]
    write_jsonl(here / "e.jsonl", [{"text": "a", "meta": {"b": [1]}}, {"text": "b", "meta": [2]}, {"text": "c"}])
    run("e.jsonl", "objects", keep=(("meta", "meta"),))
    assert pq.read_table("objects")["meta"].to_pylist() == ['{"b": [1]}', "[2]", None]


def test_numbers_of_two_kinds_and_beyond_64_bits(run, refused, here):
    write_jsonl(here / "d.jsonl", [{"text": "a", "n": 1}, {"text": "b", "n": 2.5}, {"text": "c", "n": None}])
    run("d.jsonl", keep=(("n", "n"),))
    assert pq.read_table("out")["n"].to_pylist() == [1.0, 2.5, None]
    write_jsonl(here / "e.jsonl", [{"text": "a", "n": 10**30}])
    assert "e.jsonl:1: the kept column 'n' has an integer beyond 64 bits" in refused("-i", "e.jsonl", "--keep", "n")


def binary_texts(values):
    return pa.array(values, pa.binary()).view(pa.string())


def test_what_is_not_unicode_is_rejected_alone(run, here):
    table = pa.table({"text": binary_texts([b"a", b"h\xffi", b"b"]), "k": binary_texts([b"x", b"y", b"\xff"])})
    pq.write_table(table, here / "d.parquet")
    assert run("d.parquet", on_error="skip", keep=(("k", "k"),)).counts.rejects == 2
    assert pq.read_table("out")["index"].to_pylist() == [0]
    found = rejects(here / "out")
    assert [(row["file"], row["row"]) for row in found] == [("d.parquet", 1), ("d.parquet", 2)]
    assert "not UTF-8" in found[0]["reason"]
    assert "'k' is not UTF-8" in found[1]["reason"]
    lines = [
        rb'{"text": "\ud83d"}',
        rb'{"text": "a", "k": "\ud83d"}',
        rb'{"text": "\u0000"}',
        b'{"text": "\xff"}',
        b"{",
        b"[1]",
    ]
    (here / "d.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    assert run("d.jsonl", "out2", on_error="skip", keep=(("k", "k"),)).counts.vectors == 1  # U+0000 is a character
    found = rejects(here / "out2")
    assert [row["line"] for row in found] == [1, 2, 4, 5, 6]
    for row, part in zip(
        found, ("surrogate", "'k' has the lone", "not UTF-8", "invalid JSON", "an array"), strict=True
    ):
        assert part in row["reason"]
    (here / "d.csv").write_bytes(b"text,k\na,b\n\xff,c\nd\n")
    assert run("d.csv", "out3", on_error="skip").counts.vectors == 1
    assert [row["line"] for row in rejects(here / "out3")] == [3, 4]


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


@pytest.mark.parametrize("name", ["d.jsonl.gz", "d.jsonl.zst", "d.parquet", "d.arrow"])
def test_empty_files_of_formats_with_a_head_are_errors(refused, here, name):
    (here / name).touch()
    assert f"error: {name}" in refused("-i", name)


def test_schemas_that_differ_by_file(run, refused, here):
    pq.write_table(pa.table({"text": ["a"], "lang": pa.nulls(1), "n": pa.array([1], pa.int8())}), here / "a.parquet")
    pq.write_table(pa.table({"lang": ["de"], "text": pa.array(["b"], pa.large_string()), "n": [2]}), here / "b.parquet")
    pq.write_table(pa.table({"text": ["c"]}), here / "c.parquet")
    expected = {"a": (None, 1), "b": ("de", 2), "c": (None, None)}
    for order in (["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a"]):
        run([f"{name}.parquet" for name in order], "".join(order), keep_all=True)
        table = pq.read_table("".join(order))
        assert (table.schema.field("lang").type, table.schema.field("n").type) == (pa.string(), pa.int64())
        found = list(zip(table["lang"].to_pylist(), table["n"].to_pylist(), strict=True))
        assert found == [expected[name] for name in order]
        assert table["text"].to_pylist() == order
    pq.write_table(pa.table({"text": ["d"], "lang": [4]}), here / "d.parquet")
    message = refused("-i", "b.parquet", "-i", "d.parquet", "--keep", "lang")
    assert "'lang' is string in b.parquet, and int64 in d.parquet" in message


def test_equal_names_are_refused_before_anything_is_computed(refused, rows, here):
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array([1]), pa.array([2])], ["text", "v", "v"])
    pq.write_table(twice, here / "d.parquet")
    assert "several columns 'v': rename" in refused("-i", "d.parquet", "--keep", "v")
    assert "several columns 'v': rename" in refused("-i", "d.parquet", "--keep", "all")
    assert len(rows("-i", "d.parquet")) == 1
    (here / "d.csv").write_text("text,text\na,b\n")
    assert "d.csv:1: the header has several columns 'text'" in refused("-i", "d.csv")
    for name in ("embedding", "tokens", "index", "Tokens", "SCALE"):
        write_jsonl(here / "e.jsonl", [{"text": "a", name: 1}])
        assert f"--keep {name}=NEW_NAME" in refused("-i", "e.jsonl", "--keep", "all")
    assert rows("-i", "e.jsonl", "--keep", "SCALE=own", "--force")[0]["own"] == 1
    write_jsonl(here / "e.jsonl", [{"text": "a", "id": 1, "ID": 2}])
    assert "'ID' has the name of a column of the output" in refused("-i", "e.jsonl", "--keep", "all")
    write_jsonl(here / "e.jsonl", [{"text": "a", "n": 1, "N": 2}])
    assert "letter case is not told apart" in refused("-i", "e.jsonl", "--keep", "all")
    assert "keep names the column 'n' twice" in refused("-i", "e.jsonl", "--keep", "n,n")
    assert "no file has the column 'm'; found 'N', 'n', 'text'" in refused("-i", "e.jsonl", "--keep", "m")


def test_string_layouts_of_arrow(run, refused, here):
    texts = ["a", "b", None, "a"]
    kinds = {
        "string": pa.array(texts),
        "large": pa.array(texts, pa.large_string()),
        "view": pa.array(texts, pa.string_view()),
        "dictionary": pa.array(texts).dictionary_encode(),
        "sliced": pa.array(["x", *texts, "y"]).slice(1, 4),
        "chunked": pa.chunked_array([texts[:1], [], texts[1:]]),
    }
    outputs = []
    for name, array in kinds.items():
        with pa.ipc.new_file(here / f"{name}.arrow", pa.schema([("text", array.type)])) as file:
            file.write_table(pa.table({"text": array}))
        run(f"{name}.arrow", name, on_error="skip")
        outputs.append(pq.read_table(name).to_pydict())
        if name != "view":  # which Parquet has no name for
            pq.write_table(pa.table({"text": array}), here / f"{name}.parquet")
            run(f"{name}.parquet", f"{name}-parquet", on_error="skip")
            outputs.append(pq.read_table(f"{name}-parquet").to_pydict())
    assert all(output == outputs[0] for output in outputs)
    assert outputs[0]["index"] == [0, 1, 3]
    pq.write_table(pa.table({"text": pa.nulls(2)}), here / "null.parquet")
    assert run("null.parquet", "null", on_error="skip").counts.rejects == 2
    for array, kind in ((pa.array([b"a"]), "binary"), (pa.array([1]), "int64"), (pa.array([["a"]]), "list<")):
        pq.write_table(pa.table({"text": array}), here / "bad.parquet")
        assert f"the column 'text' is {kind}" in refused("-i", "bad.parquet")


def test_a_kept_column_may_exceed_2_gib(run, here, model, monkeypatch):
    """Arrow arrays of strings hold 2 GiB: they are never joined, in or out. Here one chunk of 1 MiB is given 2,200 times."""
    from moembed.corpus import arrow_rows

    chunk = pa.array(["x" * (1 << 20)])
    table = pa.table({"text": pa.chunked_array([pa.array(["a"])] * 2200), "k": pa.chunked_array([chunk] * 2200)})
    assert table.nbytes > 1 << 31
    pq.write_table(table.slice(0, 1), here / "d.parquet")
    batches = ((i, batch) for i, batch in enumerate(table.to_batches()))
    monkeypatch.setattr(arrow_rows.ArrowFile, "batches", lambda *_: batches)
    taken = []
    from moembed.corpus.rows import Kept, Selection, blocks
    from moembed.corpus.sources import Source

    parts = arrow_rows.rows_of_file(
        Source("d.parquet", "parquet"), 0, 0, 0, Selection(), (Kept("k", "k"),), {"k": pa.string()}
    )
    for block in blocks(parts):
        taken.append(len(block))
        assert block.kept["k"].nbytes < 1 << 31
    assert sum(taken) == 2200


@pytest.mark.long
def test_a_row_group_of_3_gib(run, here):
    """With texts of 3 MiB beside the text, of which 1,000 exceed what one array of strings holds."""
    rows, size = 1000, 3 << 20
    chunk = pa.array(["x" * size])
    table = pa.table({"text": pa.chunked_array([pa.array(["a"])] * rows), "k": pa.chunked_array([chunk] * rows)})
    pq.write_table(table, here / "d.parquet", row_group_size=rows)
    run("d.parquet", keep=(("k", "k"),), shard_rows=rows)
    (path,) = (here / "out").glob("*.parquet")
    found = [
        length
        for batch in pq.ParquetFile(path).iter_batches(8, columns=["k"])
        for length in pa.compute.binary_length(batch["k"]).to_pylist()
    ]
    assert found == [size] * rows


@pytest.mark.parametrize("name", ["d.jsonl", "d.csv", "d.parquet", "d.arrow"])
@pytest.mark.parametrize("form", ["parquet", "jsonl", "csv", "npy", "arrow"])
def test_no_rows(run, here, name, form):
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
    result = run(name, form=form)
    assert (result.counts.rows, result.made) == (0, (0,))
    if form == "parquet":
        table = pq.read_table("out")
        assert table.schema.field("embedding").type.list_size == 8
        assert b"moembed.stamp" in table.schema.metadata
        assert len(table) == 0
    if form == "npy":
        assert np.load(here / "out" / "rows-000000000000.npy").shape == (0, 8)


def test_all_rows_rejected(embed, here):
    write_jsonl(here / "d.jsonl", [{"text": None}] * 3)
    assert embed("-i", "d.jsonl", "-o", "out/", "--on-error", "skip")[0] == 3
    assert len(pq.read_table("out")) == 0
    assert [row["index"] for row in rejects(here / "out")] == [0, 1, 2]
    code, err = embed("-i", "d.jsonl", "-o", "other/")
    assert code == 2
    assert "d.jsonl:1: expected a string in the field 'text', it is null" in err


def test_folders_that_others_wrote(rows, refused, here, capsys):
    data = here / "data"
    for folder in (
        data / "lang=de" / "day=1",
        data / "lang=__HIVE_DEFAULT_PARTITION__" / "day=2%20b",
        data / "_temporary" / "0",
    ):
        folder.mkdir(parents=True)
    pq.write_table(pa.table({"text": ["a"]}), data / "lang=de" / "day=1" / "p.parquet")
    pq.write_table(pa.table({"text": ["b"]}), data / "lang=__HIVE_DEFAULT_PARTITION__" / "day=2%20b" / "p.parquet")
    for name in ("_SUCCESS", ".p.parquet.crc", "_temporary/0/p.parquet", "notes.txt", ".hidden.parquet"):
        (data / name).touch()
    (data / "up").symlink_to(data.parent, target_is_directory=True)
    found = rows("-i", "data", "--keep", "lang,day,text")
    assert [(row["text"], row["lang"], row["day"]) for row in found] == [("b", None, "2 b"), ("a", "de", "1")]
    write_jsonl(data / "x.jsonl", [{"text": "c"}])
    assert "files of several formats (jsonl, parquet)" in refused("-i", "data")
    assert len(rows("-i", "data/**/*.parquet", "--force")) == 2
    assert "no file matches" in refused("-i", "data/*.csv")
    assert "cannot be read" in refused("-i", "absent.parquet")
    (here / "empty").mkdir()
    assert "no data files" in refused("-i", "empty")


def test_the_order_of_files_is_stated(run, here):
    names = [f"part-{number}.jsonl" for number in range(1, 13)]
    (here / "parts").mkdir()
    for name in [*names[5:], *names[:5]]:
        write_jsonl(here / "parts" / name, [{"id": name, "text": "a"}])
    for output, inputs, expected in (
        ("folder", "parts", sorted(names)),
        ("glob", "parts/part-*.jsonl", sorted(names)),
        ("two", ["parts/part-2.jsonl", "parts/part-1.jsonl"], [names[1], names[0]]),
    ):
        run(inputs, output, shard_rows=5)
        assert pq.read_table(output)["id"].to_pylist() == expected
        shards = sorted(path.name for path in (here / output).glob("*.parquet"))
        assert shards == [f"rows-{first:012}.parquet" for first in range(0, len(expected), 5)]


def test_other_schemes_are_refused_in_one_sentence(refused):
    for address in ("gs://bucket/x", "hf://datasets/x", "https://host/x.jsonl", "file:///x"):
        assert "is not read, only local paths and s3://" in refused("-i", address)


def test_ids_twice_or_missing(embed, run, refused, here):
    write_jsonl(here / "a.jsonl", [{"id": own, "text": f"{own}"} for own in ("x", "y", "x")] + [{"text": "z"}])
    write_jsonl(here / "b.jsonl", [{"id": own, "text": "b"} for own in ("y", None, "")])
    result = run(["a.jsonl", "b.jsonl"], "optional", shard_rows=2)
    assert (result.counts.vectors, result.repeated) == (7, 2)
    code, err = embed("-i", "a.jsonl", "-i", "b.jsonl", "--id", "id", "-o", "out/", "--on-error", "skip")
    assert code == 3
    assert "2 rows have an id that an earlier row has" in err
    assert pq.read_table("out")["id"].to_pylist() == ["x", "y", "x", "y"]
    assert [row["reason"] for row in rejects(here / "out")] == ["the id 'id' is missing"] * 3
    write_jsonl(here / "c.jsonl", [{"id": 7, "text": "c"}])
    assert "the id 'id' is string in a.jsonl:1 and int64 in c.jsonl:1" in refused("-i", "a.jsonl", "-i", "c.jsonl")
    run(["a.jsonl", "c.jsonl"], "json", form="jsonl")
    found = [
        json.loads(line).get("id") for line in (here / "json" / "rows-000000000000.jsonl").read_text().splitlines()
    ]
    assert found == ["x", "y", "x", None, 7]
    pq.write_table(pa.table({"text": ["a"], "id": [1.5]}), here / "f.parquet")
    assert "ids are strings or integers" in refused("-i", "f.parquet")
    run("f.parquet", "none", id="")
    assert "id" not in pq.read_table("none").schema.names
    assert "expected a column 'key'" in refused("-i", "f.parquet", "--id", "key")


def test_windows_have_a_key(run, here):
    write_jsonl(
        here / "d.jsonl", [{"id": own, "text": "word " * count} for own, count in (("a", 1300), ("a_1", 3), ("b", 600))]
    )
    run("d.jsonl", overlong="chunk")
    table = pq.read_table("out")
    keys = list(zip(table["id"].to_pylist(), table["window"].to_pylist(), strict=True))
    assert keys == [("a", 0), ("a", 1), ("a", 2), ("a_1", 0), ("b", 0), ("b", 1)]
    assert table["start"].to_pylist()[0] == 0
    assert table["end"].to_pylist()[2] == len("word " * 1300) - 1
    run("d.jsonl", "json", overlong="chunk", form="jsonl")
    run("d.jsonl", "csv", overlong="chunk", form="csv")
    found = [json.loads(line) for line in (here / "json" / "rows-000000000000.jsonl").read_text().splitlines()]
    assert [(row["id"], row["window"]) for row in found] == keys
    header = (here / "csv" / "rows-000000000000.csv").read_text()
    assert header.startswith("index,id,text,tokens,truncated,window,start,end,scale,d0")


def test_overlong_texts_are_rejected_one_by_one(run, here):
    write_jsonl(here / "d.jsonl", [{"text": "a"}, {"text": "word " * 600}, {"text": "b"}])
    assert run("d.jsonl", on_error="skip").counts.vectors == 2
    assert "the text has 602 tokens; the model's limit is 512" in rejects(here / "out")[0]["reason"]


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
