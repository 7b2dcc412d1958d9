"""Kept columns: one schema over all files, names that clash, and columns larger than Arrow's arrays."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.corpora import write_jsonl


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


def test_an_integer_that_floats_of_other_files_cannot_hold_is_told(run, embed, here):
    pq.write_table(pa.table({"text": ["a"], "n": [2**53]}), here / "a.parquet")
    pq.write_table(pa.table({"text": ["b"], "n": [0.5]}), here / "b.parquet")
    run(["a.parquet", "b.parquet"], "both", keep=(("n", "n"),))
    assert pq.read_table("both")["n"].to_pylist() == [2.0**53, 0.5]
    pq.write_table(pa.table({"text": ["a"], "n": [2**53 + 1]}), here / "a.parquet")
    code, message = embed("-i", "a.parquet", "-i", "b.parquet", "--keep", "n", "-o", "out/")
    assert code == 2
    assert "a.parquet: column 'n' is int64 and is kept as double, the widest type of all files" in message
    assert str(2**53 + 1) in message


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
