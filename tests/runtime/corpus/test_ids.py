"""Ids: several rows of one, rows without one, and one type in all files."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.corpora import rejects, write_jsonl


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


@pytest.mark.parametrize(
    "name", ["d.jsonl", "d.csv", "d.parquet", "large.parquet", "dictionary.parquet", "numbers.parquet"]
)
def test_equal_ids_stay_rows_and_rows_without_one_are_rejected(embed, run, here, name):
    """In two files of every format, in shards of one row."""
    ids = [7, 7, None, None] if name.startswith("numbers") else ["x", "x", None, ""]
    for folder in ("1", "2"):
        (here / folder).mkdir()
        path = here / folder / name
        if name == "d.jsonl":
            write_jsonl(path, [{"text": "a"} | ({} if own is None else {"id": own}) for own in ids])
        elif name == "d.csv":
            path.write_text("id,text\n" + "".join(f"{own or ''},a\n" for own in ids))
        else:
            array = pa.array(ids, pa.large_string() if name.startswith("large") else None)
            array = array.dictionary_encode() if name.startswith("dictionary") else array
            pq.write_table(pa.table({"id": array, "text": ["a"] * 4}), path)
    inputs = ("-i", f"1/{name}", "-i", f"2/{name}", "--id", "id", "--shard-rows", "1")
    assert "the id 'id' is missing" in embed(*inputs, "-o", "fails/")[1]
    code, err = embed(*inputs, "-o", "out/", "--on-error", "skip")
    assert (code, "3 rows have an id that an earlier row has" in err) == (3, True)
    assert pq.read_table("out")["id"].to_pylist() == ids[:2] * 2
    found = rejects(here / "out")
    assert [(row["file"], row["row"]) for row in found] == [(f"{n}/{name}", row) for n in (1, 2) for row in (2, 3)]
    assert {row["reason"] for row in found} == {"the id 'id' is missing"}
