"""Vectors in files: what readers of Parquet see, arrays with their ids, and digits of floats."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moembed.digits import shortest
from support.corpora import write_jsonl
from support.parquet_readers import READERS, read_vectors


def test_parquet_has_no_dictionary_of_components(run, here):
    write_jsonl(here / "d.jsonl", [{"id": f"k{n}", "text": f"text {n} of many"} for n in range(2000)])
    run("d.jsonl", dim=None, shard_rows=5000)
    metadata = pq.read_metadata("out/rows-000000000000.parquet")
    assert metadata.num_row_groups == 1
    group = metadata.row_group(0)
    (column,) = (
        group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema.startswith("embedding")
    )
    assert not column.has_dictionary_page
    assert "BYTE_STREAM_SPLIT" in column.encodings
    components = 2000 * 384
    assert column.total_uncompressed_size <= 4.05 * components
    assert column.total_compressed_size <= 3.6 * components
    assert column.compression == "ZSTD"


@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "plain"])
@pytest.mark.parametrize("precision", ["float32", "float16", "int8", "uint8", "ubinary"])
def test_what_readers_read(run, model, here, precision, fixed):
    """Values are equal in every reader; docs/corpora.md has the table of what they see."""
    write_jsonl(here / "d.jsonl", [{"text": text} for text in "abc"])
    run("d.jsonl", precision=precision, fixed=fixed)
    expected = model.encode(["a", "b", "c"], prompt="", truncate_dim=8, precision=precision)
    (path,) = Path("out").glob("*.parquet")
    schema = pq.read_schema(path)
    assert pa.types.is_fixed_size_list(schema.field("embedding").type) is fixed
    for reader in READERS:
        values, _ = read_vectors(reader, path)
        assert np.array_equal(np.array(values, expected.dtype), expected), reader
    if precision in ("int8", "uint8"):
        from moembed import dequantize_embeddings

        scales = pq.read_table(path)["scale"].to_numpy()
        restored = dequantize_embeddings(expected, precision, scales)
        assert np.abs(restored - model.encode(["a", "b", "c"], prompt="", truncate_dim=8)).max() < 0.01


def test_npy_has_its_ids_beside_it(run, model, here):
    write_jsonl(here / "d.jsonl", [{"id": text, "text": text, "n": n} for n, text in enumerate("abcde")])
    run("d.jsonl", form="npy", shard_rows=3, keep=(("n", "n"),))
    arrays = [np.load(path) for path in sorted(Path("out").glob("*.npy"))]
    assert np.array_equal(np.concatenate(arrays), model.encode(list("abcde"), prompt="", truncate_dim=8))
    lines = [line for path in sorted(Path("out").glob("*.ids.jsonl")) for line in path.read_text().splitlines()]
    assert json.loads(lines[4]) == {"index": 4, "id": "e", "n": 4, "tokens": 3, "truncated": False}


def test_floats_have_the_fewest_digits(run, model, here):
    texts = [f"text {n}" for n in range(20)]
    write_jsonl(here / "d.jsonl", [{"text": text} for text in texts])
    run("d.jsonl", "jsonl", form="jsonl", dim=None, shard_rows=100)
    run("d.jsonl", "csv", form="csv", dim=None, shard_rows=100)
    expected = model.encode(texts, prompt="")
    lines = Path("jsonl/rows-000000000000.jsonl").read_text().splitlines()
    assert np.array_equal(np.array([json.loads(line)["embedding"] for line in lines], np.float32), expected)
    digits = [repr(value) for value in shortest(expected[0]).tolist()]
    assert f'"embedding": [{", ".join(digits)}]' in lines[0]
    with Path("csv/rows-000000000000.csv").open(newline="") as file:
        rows = [list(row.values()) for row in csv.DictReader(file)]
    assert rows[0][-384:] == digits
    assert max(map(len, lines)) < 384 * 15
