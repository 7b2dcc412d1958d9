"""Batches of Arrow: as many rows out as in, and null vectors where a row has none."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moembed.errors import BundleError, InputError
from moembed.integrations.batches import BatchEncoder, BatchOptions, openings
from moembed.stamps.stamp import KEY, Stamp

TEXTS = ["hello", None, "a second text", "word " * 600, "NA"]


def vectors_of(batch, name="embedding"):
    return [None if value is None else np.array(value, np.float32) for value in batch[name].to_pylist()]


def encoder(**options):
    fixed = options.pop("fixed", True)
    return BatchEncoder(BatchOptions(**options), threads=1, fixed=fixed)


@pytest.fixture(scope="module")
def table():
    return pa.table({"id": range(5), "text": pa.chunked_array([TEXTS[:2], TEXTS[2:]])})


@pytest.mark.parametrize("fixed", [True, False])
def test_rows_without_a_vector_are_null_and_say_why(model, table, fixed):
    batch = encoder(fixed=fixed)(table)
    assert batch["id"].to_pylist() == [0, 1, 2, 3, 4]
    found = vectors_of(batch)
    assert [value is None for value in found] == [False, True, False, True, False]
    expected = model.encode_document([TEXTS[0], TEXTS[2], TEXTS[4]])
    assert np.array_equal(np.stack([found[0], found[2], found[4]]), expected)
    reasons = batch["embedding_reason"].to_pylist()
    assert [reason is None for reason in reasons] == [True, False, True, False, True]
    assert reasons[1] == "the text is null"
    assert "limit is 512" in reasons[3]
    assert pa.types.is_fixed_size_list(batch.schema.field("embedding").type) == fixed


@pytest.mark.parametrize("fixed", [True, False])
def test_null_vectors_are_read_back_by_every_reader(table, tmp_path, fixed):
    batch = encoder(fixed=fixed)(table)
    try:
        pq.write_table(batch, tmp_path / "t.parquet")
    except pa.ArrowNotImplementedError as error:  # of some releases, for nulls in lists of fixed size
        pytest.skip(str(error))
    expected = vectors_of(batch)
    readers = {"pyarrow": lambda path: pq.read_table(path)["embedding"].to_pylist()}
    pl = pytest.importorskip("polars")
    readers["polars"] = lambda path: pl.read_parquet(path)["embedding"].to_list()
    pd = pytest.importorskip("pandas")
    readers["pandas"] = lambda path: list(pd.read_parquet(path)["embedding"])
    duckdb = pytest.importorskip("duckdb")
    readers["duckdb"] = lambda path: [row[0] for row in duckdb.sql(f"SELECT embedding FROM '{path}'").fetchall()]
    for name, read in readers.items():
        found = read(tmp_path / "t.parquet")
        for own, other in zip(found, expected, strict=True):
            assert (own is None) == (other is None), name
            assert other is None or np.array_equal(np.array(own, np.float32), other), name


def layouts():
    plain = pa.array(TEXTS)
    yield "large_string", plain.cast(pa.large_string())
    yield "string_view", pa.array(TEXTS, pa.string_view())
    yield "dictionary", plain.dictionary_encode()
    yield "sliced", pa.array(["before", *TEXTS, "after"]).slice(1, 5)


@pytest.mark.parametrize(("name", "array"), list(layouts()), ids=lambda value: value if isinstance(value, str) else "")
def test_every_layout_of_strings_gives_the_same(table, name, array):
    add = encoder()
    expected = add(table)["embedding"].combine_chunks()
    assert add(pa.table({"text": array}))["embedding"].combine_chunks().equals(expected)


def test_a_null_column_has_no_vectors_and_bytes_are_refused():
    batch = encoder()(pa.table({"text": pa.nulls(3)}))
    assert batch["embedding"].null_count == 3
    assert batch["embedding_reason"].to_pylist() == ["the text is null"] * 3
    for array in (pa.array([b"a"]), pa.array([1]), pa.array([["a"]])):
        with pytest.raises(InputError, match="expected strings"):
            encoder()(pa.table({"text": array}))


def test_bytes_that_are_not_utf8_cost_only_their_row(model):
    offsets, data = np.array([0, 1, 4, 5], np.int32), b"ah\xffib"
    array = pa.StringArray.from_buffers(3, pa.py_buffer(offsets), pa.py_buffer(data))
    batch = encoder()(pa.table({"text": array}))
    assert batch["embedding_reason"].to_pylist() == [None, "the text is not UTF-8 at byte 1", None]
    found = vectors_of(batch)
    assert np.array_equal(np.stack([found[0], found[2]]), model.encode_document(["a", "b"]))


def test_empty_batches_have_the_same_schema(table):
    add = encoder(precision="int8", overlong="truncate")
    expected = add(table).schema
    assert add(table.slice(0, 0)).schema.equals(expected, check_metadata=True)
    empty = add(pa.table({}))
    assert empty.num_rows == 0
    assert [field for field in expected if field.name.startswith("embedding")] == list(empty.schema)


def test_record_batches_stay_record_batches(table):
    (batch, *_) = table.to_batches()
    assert isinstance(encoder()(batch), pa.RecordBatch)


def test_scales_and_cuts(model, table):
    batch = encoder(precision="int8", overlong="truncate")(table)
    rows = [0, 2, 3, 4]
    expected = list(
        model.embed([TEXTS[row] for row in rows], prompt="passage: ", precision="int8", overlong="truncate")
    )
    assert [batch["embedding"][row].as_py() for row in rows] == [row.vector.tolist() for row in expected]
    assert [batch["embedding_scale"][row].as_py() for row in rows] == [row.scale for row in expected]
    assert batch["embedding_truncated"].to_pylist() == [False, None, False, True, False]
    assert batch["embedding_scale"][1].as_py() is None


def test_long_columns_are_computed_in_blocks(model):
    # One chunk of more than a million characters, whose blocks end within the parts that are read.
    long = ["word " * 60] * 5000
    texts = [*long, "end"]
    add = encoder(overlong="truncate")
    sizes = []
    compute = add.encoder.compute
    add.encoder.compute = lambda block: sizes.append(sum(map(len, block))) or compute(block)
    batch = add(pa.table({"text": texts}))
    assert len(sizes) >= 2
    assert max(sizes) <= (1 << 20) + 300
    found = batch["embedding"]
    assert found.null_count == 0
    assert np.array_equal(np.array(found[5000].as_py(), np.float32), model.encode_document("end"))
    assert found[4999].as_py() == found[0].as_py()


def test_stamps(table):
    add = encoder(truncate_dim=64)
    batch = add(table)
    stamp = Stamp.from_json(batch.schema.metadata[KEY.encode()], "the table")
    assert stamp == add.stamp
    assert stamp.width == 64
    assert batch.schema.field("embedding").metadata[KEY.encode()].decode() == add.stamp.to_json()
    assert encoder(truncate_dim=64, stamp=add.stamp.to_json()).stamp == add.stamp
    changed = json.dumps(json.loads(add.stamp.to_json()) | {"kernels": "portable"})
    with pytest.raises(BundleError, match="kernels: 'portable', and 'native'"):
        encoder(truncate_dim=64, stamp=changed)


def test_two_columns_of_vectors_keep_their_own_stamps(table):
    batch = encoder(into="short", truncate_dim=64)(encoder()(table))
    widths = {
        name: Stamp.from_json(batch.schema.field(name).metadata[KEY.encode()], name).width
        for name in ("embedding", "short")
    }
    assert widths == {"embedding": 384, "short": 64}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"field": "body"}, "field = 'body'; the columns are 'id', 'text'"),
        ({"into": "id"}, "a column 'id' already"),
        ({"into": "ID"}, "a column 'ID' already"),
        ({"into": ""}, "into = ''"),
        ({"overlong": "chunk"}, "overlong = chunk gives .* as many rows out as in"),
        ({"overlong": "late"}, "overlong = late gives .* as many rows out as in"),
        ({"precision": "int4"}, "precision = 'int4'"),
        ({"truncate_dim": 1000}, "truncate_dim = 1000"),
        ({"prompt": "", "prompt_name": "query"}, "pass only one"),
        ({"prompt_name": "nothing"}, "nothing"),
    ],
)
def test_refused(table, options, message):
    with pytest.raises(InputError, match=message):
        encoder(**options)(table)


def test_a_column_of_texts_that_is_there_twice_is_refused():
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"])
    with pytest.raises(InputError, match="the columns are 'text', 'text': rename all but one"):
        encoder()(twice)
    other = pa.Table.from_arrays([pa.array(["a"]), pa.array([1]), pa.array([2])], ["text", "v", "v"])
    assert encoder()(other).column_names == ["text", "v", "v", "embedding", "embedding_reason"]


def test_other_columns_may_exceed_2_gib(model):
    """One chunk of 1 MiB that is there 2,200 times: arrays of strings with 32-bit offsets cannot be joined."""
    chunk = pa.array(["x" * (1 << 20)])
    batch = encoder()(pa.table({"text": pa.chunked_array([["a"]] * 2200), "k": pa.chunked_array([chunk] * 2200)}))
    assert (batch["k"].nbytes > 1 << 31, batch["k"].num_chunks) == (True, 2200)
    vectors = set(map(tuple, batch["embedding"].to_pylist()))
    assert vectors == {tuple(model.encode_document("a").tolist())}


def test_datasets_map_has_as_many_rows_as_before(model, table, tmp_path, monkeypatch):
    """Where encode_document refuses a null, since it gives one vector for each text."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    rows = datasets.Dataset.from_dict({"text": TEXTS}).with_format("arrow")
    mapped = rows.map(encoder(), batched=True, batch_size=2)
    expected = vectors_of(encoder()(table))
    for one, other in zip(mapped.with_format(None)["embedding"], expected, strict=True):
        assert one is None if other is None else np.array_equal(np.array(one, np.float32), other)
    with pytest.raises(InputError, match="text 1 is NoneType"):
        datasets.Dataset.from_dict({"text": TEXTS}).map(
            lambda batch: {"vector": model.encode_document(batch["text"])}, batched=True
        )


def test_a_process_opens_a_model_once():
    encoder()
    before = openings()
    encoder(truncate_dim=64)
    assert openings() == before
    BatchEncoder(BatchOptions(), threads=2)
    assert openings() == before + 1, "other threads, another session"
