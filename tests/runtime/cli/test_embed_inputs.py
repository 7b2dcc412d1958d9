"""Input of `moembed embed`: texts and records are told apart, ids are kept, ambiguous input is refused."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import sys
import zipfile

import numpy as np
import pytest

from moembed.cli import main
from moembed.corpus.rows import Selection
from moembed.corpus.sources import Source
from moembed.corpus.streamed import stream

RECORDS = '{"id": 7, "text": "a"}\n{"id": "x", "text": "b", "more": NaN}\n{"text": "c"}\n'


@pytest.fixture
def embed(capsys, monkeypatch, tmp_path, opened_once):
    """Embed in `tmp_path`; gives (exit code, rows of JSONL or other stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*argv, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main(["embed", "--dim", "8", *map(str, argv)])
        out, err = capsys.readouterr()
        return code, [json.loads(line) for line in out.splitlines()] if out.startswith("{") else out, err

    return run


def refused(result):
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("moembed: error: ")
    assert err.count("\n") == 1
    return err


def ids_and_texts(rows):
    return [(row.get("id"), row["text"]) for row in rows]


EXPECTED = [(7, "a"), ("x", "b"), (None, "c")]


@pytest.mark.parametrize("name", ["d.jsonl", "d.ndjson", "d.jl", "D.JSONL"])
def test_jsonl_by_its_names(embed, tmp_path, name):
    (tmp_path / name).write_text(RECORDS)
    code, rows, err = embed("-i", name)
    assert (code, ids_and_texts(rows), err) == (0, EXPECTED, "")
    assert "id" not in rows[2]


@pytest.mark.parametrize("name", ["d", "d.txt", "d.json", "d.data"])
def test_records_by_another_name_are_not_taken_for_texts(embed, tmp_path, name):
    (tmp_path / name).write_text("\n \n" + RECORDS)
    assert f"{name}:3: this looks like JSON" in refused(embed("-i", name))
    assert ids_and_texts(embed("-i", name, "--input-format", "jsonl")[1]) == EXPECTED
    rows = embed("-i", name, "--input-format", "lines")[1]
    assert [row["text"] for row in rows] == ["", " ", *RECORDS.splitlines()]


def test_records_on_stdin_are_not_taken_for_texts(embed):
    assert "stdin:1: this looks like JSON" in refused(embed(stdin=RECORDS.encode()))
    assert ids_and_texts(embed("--input-format", "jsonl", stdin=RECORDS.encode())[1]) == EXPECTED


@pytest.mark.parametrize("document", ['[{"text": "a"}]', '{\n "text": "a"\n}', "[\n1\n]"])
def test_a_json_document_is_not_taken_for_texts(embed, tmp_path, document):
    (tmp_path / "d").write_text(document)
    assert "this looks like JSON" in refused(embed("-i", "d"))


def test_texts_that_look_a_little_like_json_are_texts(embed):
    lines = ["[1] a footnote", "[1]", '"quoted"', "{not json}", "7", "[" * 5000]
    for line in lines:
        _, rows, _ = embed("--overlong", "truncate", stdin=line.encode())
        assert [row["text"] for row in rows] == [line]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "\n \n\t\n", ""])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_blank_lines_of_jsonl_are_skipped(embed, tmp_path, end, mark):
    (tmp_path / "d.jsonl").write_bytes((mark + '\n{"text": "a"}\r\n\n{"text": "b"}' + end).encode())
    code, rows, _ = embed("-i", "d.jsonl")
    assert (code, [row["text"] for row in rows]) == (0, ["a", "b"])
    (tmp_path / "e.jsonl").write_text('\n\n{"text": 1}\n')
    assert "e.jsonl:3: expected a string in the field 'text', it is a number" in refused(embed("-i", "e.jsonl"))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "a", "text": "b"}', "the field 'text' occurs more than once"),
        ('{"id": 1, "text": "a", "id": 2}', "the field 'id' occurs more than once"),
        ('{"id": NaN, "text": "a"}', "a string or a number as the id 'id', found nan"),
        ('{"id": 1e999, "text": "a"}', "a string or a number as the id 'id', found inf"),
        ('{"id": {}, "text": "a"}', "a string or a number as the id 'id', found an object"),
        ('{"id": [1], "text": "a"}', "a string or a number as the id 'id', found an array"),
        ('{"id": true, "text": "a"}', "a string or a number as the id 'id', found a boolean"),
        ('{"text": null}', "it is null"),
        ('{"txt": "a"}', "found 'txt'; choose another with --field"),
        ("{}", "found no fields"),
        ('["text", "a"]', "found an array"),
        ("{", "invalid JSON"),
        ('{"text": "a"} {"text": "b"}', "invalid JSON"),
        ('\x00{"text": "a"}', "invalid JSON"),
        ("[" * 100_000, "invalid JSON"),
        ('{"id": ' + "1" * 5000 + ', "text": "a"}', "invalid JSON"),
        ('{"text": "\\ud800"}', "lone surrogate"),
    ],
)
def test_records_that_cannot_be_used(embed, tmp_path, line, reason):
    (tmp_path / "d.jsonl").write_text(line)
    assert reason in refused(embed("-i", "d.jsonl"))


@pytest.mark.parametrize("own", [0, -1, 10**30, 7.5, "", "ä\n", "\ud800"])
def test_ids_come_out_as_they_went_in(embed, tmp_path, own):
    (tmp_path / "d.jsonl").write_text(json.dumps({"id": own, "text": "a", "x": {"id": 1, "id2": [None]}}))
    embed("-i", "d.jsonl", "-o", "v.jsonl")
    row = json.loads((tmp_path / "v.jsonl").read_bytes().decode("utf-8"))
    assert (row["id"], type(row["id"])) == (own, type(own))


def test_the_id_may_have_another_name(embed, tmp_path):
    (tmp_path / "d.jsonl").write_text('{"_id": "d1", "title": "t", "text": "a"}\n')
    assert embed("-i", "d.jsonl", "--id-field", "_id", "--field", "title")[1][0] == {
        **embed("t")[1][0],
        "id": "d1",
    }


def test_windows_of_a_text_share_its_id(embed, tmp_path):
    (tmp_path / "d.jsonl").write_text(json.dumps({"id": 3, "text": "word " * 700}) + '\n{"id": 4, "text": "a"}\n')
    rows = embed("-i", "d.jsonl", "--overlong", "chunk")[1]
    assert [(row["index"], row["id"]) for row in rows] == [(0, 3), (0, 3), (1, 4)]


TEXTS = ["plain", "with, comma", 'with "quotes"', "two\nlines", "two\r\nlines", "tab\there", "ß 北", " spaces ", "\0"]


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_written_csv_is_read_back(embed, tmp_path, delimiter):
    (tmp_path / "d.jsonl").write_text(
        "".join(json.dumps({"id": f"n{i}", "text": t}) + "\n" for i, t in enumerate(TEXTS))
    )
    embed("-i", "d.jsonl", "-o", "v.csv")
    if delimiter == "\t":
        with (tmp_path / "v.csv").open(newline="") as file, (tmp_path / "v.tsv").open("w", newline="") as other:
            csv.writer(other, delimiter="\t").writerows(csv.reader(file))
    _, rows, err = embed("-i", "v.csv" if delimiter == "," else "v.tsv")
    assert (ids_and_texts(rows), err) == ([(f"n{i}", text) for i, text in enumerate(TEXTS)], "")
    assert [row["embedding"] for row in rows] == [row["embedding"] for row in embed("-i", "d.jsonl")[1]]


def test_csv_as_others_write_it(embed, tmp_path):
    (tmp_path / "d.CSV").write_bytes(b'\xef\xbb\xbfid,body\r\n1,"a\r\nb"\r\n\r\n,c\r\n')
    assert ids_and_texts(embed("-i", "d.CSV", "--field", "body")[1]) == [("1", "a\r\nb"), (None, "c")]
    (tmp_path / "long.csv").write_text("text\n" + "word " * 100_000 + "\n")
    assert embed("-i", "long.csv", "--overlong", "truncate")[0] == 0
    (tmp_path / "empty.csv").write_text("")
    assert embed("-i", "empty.csv", "-f", "csv")[:2] == (
        0,
        "index,id,text,tokens,truncated,scale,d0,d1,d2,d3,d4,d5,d6,d7\n".replace("\n", "\r\n"),
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("id\ttext\n1\ta\n", ":1: expected a column 'text', found 'id\\ttext'"),
        ("text,text\na,b\n", ":1: the header has several columns 'text'"),
        ("text,id,id\na,b,c\n", ":1: the header has several columns 'id'"),
        ('id,text\n1,a\n2,"b\nc",d\n', ":3: the row has 3 cells, the header has 2"),
        ("id,text\n1,a\n2,b,c\n", ":3: the row has 3 cells, the header has 2"),
        ("id,text\n1\n", ":2: the row has 1 cells, the header has 2"),
        ('text\n"a\n', ":2: unexpected end of data"),
        ('text\n"a"b\n', ":2: ',' expected after '\"'"),
        ("text\ra\r", ":1: new-line character seen in unquoted field"),
    ],
)
def test_csv_that_cannot_be_used(embed, tmp_path, content, reason):
    (tmp_path / "d.csv").write_bytes(content.encode())
    assert f"d.csv{reason}" in refused(embed("-i", "d.csv"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.jsonl", '\ufeff{"id": 1, "text": "a"}\n\n{"text": "\\u0000", "more": [1]}\n'),
        ("d.jsonl", '{"text": "a"}\n{"text": "b'),
        ("d.jsonl", '{"text": "a"}\n{"id": true, "text": "b"}\n'),
        ("d.csv", "\ufeffid;text\r\n1;a, b\r\n"),
        ("d.csv", 'sep=;\nid;text\n1;"a\nb"\n'),
        ("d.csv", "id,body\n1,a\n"),
        ("d.csv", "id,text\n1,a\n2"),
        ("d.tsv", "id\ttext\n\n1\tNA\n"),
        ("d.txt", "\ufeffa\r\n\nb"),
        ("text=ü%20b/d.jsonl", '{"id": "x"}\n'),
    ],
)
def test_a_stream_is_read_as_a_corpus_is(embed, tmp_path, name, content):
    """Both ways give the same texts and ids, or the same error."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content.encode())
    streamed, whole = embed("-i", name), embed("-i", name, "--on-error", "fail", "--quiet")
    if isinstance(streamed[1], list):
        keys = ("index", "id", "text", "embedding")
        streamed, whole = ([{key: row.get(key) for key in keys} for row in rows] for _, rows, _ in (streamed, whole))
        assert streamed
    assert streamed == whole


def test_a_stream_is_read_no_further_than_its_texts_are_taken(monkeypatch):
    """A program that writes a text and waits for its vector gets it."""
    receiver, sender = os.pipe()
    with os.fdopen(receiver) as stdin, os.fdopen(sender, "wb", buffering=0) as writer:
        monkeypatch.setattr(sys, "stdin", stdin)
        for form, head, row in (
            ("lines", b"", b"%d\n"),
            ("jsonl", b"", b'{"text": "%d"}\n'),
            ("csv", b"text\n", b'"%d"\n'),
        ):
            texts = stream(Source("-", form, label="stdin"), Selection())
            writer.write(head)
            for number in range(3):
                writer.write(row % number)
                assert next(texts).text == f"{number}"
            texts.close()


def test_stdin_is_named_once(embed):
    assert "stdin is named twice: name it once" in refused(embed("-i", "-", "-i", "-", stdin=b"a\n"))


def zipped(data):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("d.txt", data)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (gzip.compress(RECORDS.encode(), mtime=0), "it is gzip: zcat"),
        (bz2.compress(RECORDS.encode()), "it is bzip2: bzcat"),
        (lzma.compress(RECORDS.encode()), "it is xz: xzcat"),
        (b"\x28\xb5\x2f\xfd\x04\x00\x11", "it is zstd: zstdcat"),
        (zipped(RECORDS), "it is a zip archive or an office document"),
        (b"PAR1\x15\x04\x15\xa0\xe0", "it is Parquet"),
        (b"ARROW1\0\0\xff\xff\xff\xff\x30\0\0\0", "it is Arrow"),
        (b"%PDF-1.4\nBT (a text) ET\n", "it is PDF: extract its text first"),
        ("text\n".encode("utf-16"), "it is UTF-16: convert it to UTF-8 first"),
        ("text\n".encode("utf-16-le"), "convert it to UTF-8 text first"),
        (b"a\0b\n", "a NUL byte"),
        ("grün\n".encode("latin-1"), "not UTF-8 at byte 2 of the line; convert it to UTF-8 text first"),
    ],
)
@pytest.mark.parametrize("name", ["d", "d.txt"])
def test_files_that_are_no_text(embed, tmp_path, content, reason, name):
    (tmp_path / name).write_bytes(content)
    message = refused(embed("-i", name))
    assert message.startswith(f"moembed: error: {name}")
    assert reason in message


def test_arrays_and_folders_are_no_text(embed, tmp_path):
    np.save(tmp_path / "v.npy", np.ones(3, np.float32))
    assert "it is a numpy array, which has no texts" in refused(embed("-i", "v.npy"))
    assert "the folder has no data files" in refused(embed("-i", tmp_path))


def test_words_that_start_as_such_files_do_are_texts(embed):
    lines = ["PAR1 is a gene", "BZhang is a user", "ARROW1", "PK"]
    assert [row["text"] for row in embed(stdin="\n".join(lines).encode())[1]] == lines


@pytest.mark.parametrize("command", ["embed", "similarity"])
def test_a_text_that_is_a_file_is_refused(embed, capsys, tmp_path, command):
    (tmp_path / "data.jsonl").write_text(RECORDS)
    (tmp_path / "folder").mkdir()
    assert main([command, "folder", "data.jsonl"]) == 2
    err = capsys.readouterr().err
    assert "data.jsonl is a file; expected a text" in err
    assert ("pass -i data.jsonl to embed its content" in err) is (command == "embed")
    for argv in (["--", "data.jsonl", "x"], ["x", "--", "data.jsonl"], ["--prompt", "", "folder", "--", "data.jsonl"]):
        assert main([command, *argv]) == 0
    assert main([command, "data.jsonl", "--", "x"]) == 2
    assert main([command, "folder", "x" * 300]) == 0


def test_no_text_makes_an_array_of_the_right_width(embed, tmp_path):
    for precision, width, dtype in (
        ("float32", 8, "<f4"),
        ("float16", 8, "<f2"),
        ("int8", 8, "|i1"),
        ("ubinary", 1, "|u1"),
    ):
        assert embed("-o", "v.npy", "--precision", precision)[0] == 0
        found = np.load(tmp_path / "v.npy")
        assert (found.shape, found.dtype.str) == ((0, width), dtype)
    assert embed() == (0, "", "")
