"""Rows of the input: texts of columns and templates, windows, and rows that are rejected one by one."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.corpora import rejects, write_jsonl

WORDS = ["NA", "null", "None", "nan", "n/a", "-", "TRUE", "1.0", "", ""]


@pytest.mark.parametrize("option", [("--field", "text"), ("--template", "{text}")])
def test_words_that_look_like_nulls_are_texts_ids_and_values(rows, here, model, option):
    """An empty cell is an empty text, quoted or not, and no id."""
    cells = [*WORDS[:8], '""', ""]
    (here / "d.csv").write_text("id,text,k\n" + "".join(f"{cell},{cell},{cell}\n" for cell in cells))
    found = rows("-i", "d.csv", *option, "--prompt", "", "--keep", "k")
    assert [row["id"] for row in found] == [*WORDS[:8], None, None]
    assert [row["k"] for row in found] == WORDS
    expected = model.encode(WORDS, prompt="", truncate_dim=8)
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


def test_all_rows_rejected(embed, here):
    write_jsonl(here / "d.jsonl", [{"text": None}] * 3)
    assert embed("-i", "d.jsonl", "-o", "out/", "--on-error", "skip")[0] == 3
    assert len(pq.read_table("out")) == 0
    assert [row["index"] for row in rejects(here / "out")] == [0, 1, 2]
    code, err = embed("-i", "d.jsonl", "-o", "other/")
    assert code == 2
    assert "d.jsonl:1: expected a string in the field 'text', it is null" in err


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
