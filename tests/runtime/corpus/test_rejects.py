"""Rejected rows: they belong to their shard, and are done later."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from moembed.corpus.shards import REJECTS
from moembed.errors import InputError
from support.corpora import content, rejects, write_jsonl


def test_rejects_later(run, corpus, whole, here):
    assert [row["index"] for row in rejects(here / "out")] == [17, 30]
    result = run(corpus, "later", only_rejects="out", overlong="truncate", on_error="skip")
    assert (result.made, result.counts.vectors, result.counts.rejects) == ((1, 3), 1, 1)
    assert pq.read_table("later")["index"].to_pylist() == [30]
    records = [json.loads(line) for line in Path(corpus).read_text().splitlines()]
    records[17]["text"] = "mended"
    write_jsonl(here / "mended.jsonl", records)
    result = run("mended.jsonl", "mended", only_rejects="out", overlong="truncate")
    assert pq.read_table("mended")["index"].to_pylist() == [17, 30]
    assert sorted([*pq.read_table("out")["index"].to_pylist(), 17, 30]) == list(range(60))
    write_jsonl(here / "longer.jsonl", [*records, records[0]])
    with pytest.raises(InputError, match="had \\[60\\]"):
        run("longer.jsonl", "longer", only_rejects="out")
    with pytest.raises(InputError, match="is no output folder of moembed embed"):
        run(corpus, "none", only_rejects="absent")


def test_damaged_rejects_are_told(run, corpus, whole, here):
    path = next((here / "out" / REJECTS).iterdir())
    path.write_text('{"index": ')
    with pytest.raises(InputError, match=f"{path.name} is damaged .* give the command of out again, which mends it"):
        run(corpus, "rest", only_rejects="out")
    assert len(run(corpus, on_error="skip").made) == 1
    assert content(here / "out") == whole
