"""Ids: several rows of one, rows without one, and one type in all files."""

import json

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq

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
