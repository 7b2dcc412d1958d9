"""Spark with two executors of their own on this machine."""

import os
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moembed import load_vectors
from moembed.corpus import Options, Selection, embed_files
from moembed.errors import InputError
from moembed.integrations.batches import BatchEncoder, BatchOptions
from moembed.integrations.spark import _Partition, embed_udf
from moembed.precision import PRECISIONS
from moembed.stamps.loading import read_stamp
from support.mappings import check_shared, mapping_reader, on_linux

pytestmark = pytest.mark.engines
pytest.importorskip("pyspark")
BATCH = 10


@pytest.fixture(scope="module")
def spark():
    from pyspark.sql import SparkSession

    python = dict.fromkeys(("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON"), sys.executable)
    before = {name: os.environ.get(name) for name in python}
    os.environ.update(python)
    session = (
        SparkSession.builder.master("local-cluster[2,1,1024]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", str(BATCH))
        .config("spark.sql.shuffle.partitions", "3")
        .config("spark.sql.adaptive.enabled", "false")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def frame_of(spark, texts, partitions=1):
    rows = list(enumerate(texts))
    return spark.createDataFrame(rows, "id long, text string").repartition(partitions, "id")


@pytest.mark.parametrize("partitions", [1, 3])
def test_rows_nulls_and_the_last_batch_of_one(spark, model, partitions):
    texts = [None if row % 4 == 3 else f"text {row}" for row in range(2 * BATCH + 1)]
    texts[5] = "word " * 700
    rows = frame_of(spark, texts, partitions).transform(embed_udf()).collect()
    found = {row.id: row for row in rows}
    assert len(rows) == len(found) == len(texts)
    fine = [row for row, text in enumerate(texts) if text is not None and row != 5]
    assert [row for row in range(len(texts)) if found[row].embedding is not None] == fine
    assert [row for row in range(len(texts)) if found[row].embedding_reason is None] == fine
    vectors = np.array([found[row].embedding for row in fine], np.float32)
    assert np.array_equal(vectors, model.encode_document([texts[row] for row in fine]))


def test_a_vector_that_is_used_three_times_is_computed_once(spark):
    from pyspark.sql import functions as f

    frame = frame_of(spark, [f"text {row}" for row in range(30)], 2)
    counter = spark.sparkContext.accumulator(0)
    embed = embed_udf(truncate_dim=64)

    def counted(batches):
        for batch in batches:
            counter.add(batch.num_rows)
            yield batch

    vectors = frame.mapInArrow(counted, frame.schema).transform(embed)
    used = vectors.withColumn("first", f.col("embedding")[0]).withColumn("second", f.col("embedding")[1])
    rows = used.filter(f.col("first") > -2).filter(f.size("embedding") == 64).collect()
    assert len(rows) == 30
    assert counter.value == 30


def in_worker(options, tell):
    """Return a function for mapInArrow that embeds, and yields what `tell()` returns for each row, and the process."""

    def told(batches):
        import os

        for batch in _Partition(options)(batches):
            columns = [pa.array([value] * batch.num_rows) for value in (os.getpid(), tell())]
            yield pa.RecordBatch.from_arrays(columns, names=["pid", "told"])

    return told


def test_a_python_worker_opens_the_model_once(spark):
    def opened():
        from moembed.integrations.batches import openings

        return openings()

    frame = frame_of(spark, [f"text {row}" for row in range(60)], 6)
    told = in_worker(BatchOptions(truncate_dim=64), opened)
    rows = [row for _ in range(2) for row in frame.mapInArrow(told, "pid long, told long").collect()]
    assert len(rows) == 120
    assert {row.told for row in rows} == {1}, "partitions of a worker share the model"
    # An executor starts a second worker where the next task begins before the first one is back in its pool.
    assert len({row.pid for row in rows}) <= 4, "not one for each partition"


@on_linux
def test_python_workers_have_the_weights_in_memory_once(spark, model):
    mapped = mapping_reader()
    frame = frame_of(spark, [f"text {row}" for row in range(60)], 6)
    told = in_worker(BatchOptions(truncate_dim=64), lambda: mapped(".onnx_data"))
    rows = frame.mapInArrow(told, "pid long, told string").collect()
    assert len({row.pid for row in rows}) >= 2
    (weights,) = model.bundle.folder.glob("onnx/*.onnx_data")
    check_shared({row.told for row in rows}, weights)


def test_integers_and_cuts(spark, model):
    texts = ["a", "word " * 700]
    options = {"precision": "int8", "overlong": "truncate", "into": "code"}
    rows = sorted(frame_of(spark, texts).transform(embed_udf(**options)).collect())
    (first, second) = model.embed(texts, prompt="passage: ", precision="int8", overlong="truncate")
    assert [list(row.code) for row in rows] == [first.vector.tolist(), second.vector.tolist()]
    assert [row.code_scale for row in rows] == [first.scale, second.scale]
    assert [row.code_truncated for row in rows] == [False, True]


def test_vectors_are_right_after_parquet(spark, tmp_path, model):
    texts = ["one", None, "three", None, "five"]
    frame_of(spark, texts).transform(embed_udf()).write.parquet(str(tmp_path / "out"))
    rows = sorted(spark.read.parquet(str(tmp_path / "out")).collect())
    assert [row.embedding is None for row in rows] == [False, True, False, True, False]
    found = np.array([row.embedding for row in rows if row.embedding], np.float32)
    assert np.array_equal(found, model.encode_document(["one", "three", "five"]))


def test_what_pyarrow_wrote_is_read_with_its_nulls_and_written_without_its_stamp(spark, tmp_path, model):
    """Lists of a fixed size with nulls; Spark drops the metadata of files and columns that it writes anew."""
    texts = ["one", None, "three", None, "five"]
    (tmp_path / "in").mkdir()
    pq.write_table(BatchEncoder(BatchOptions(), threads=1)(pa.table({"text": texts})), tmp_path / "in" / "a.parquet")
    frame = spark.read.parquet(str(tmp_path / "in"))
    rows = frame.collect()
    assert [row.embedding is None for row in rows] == [False, True, False, True, False]
    found = np.array([row.embedding for row in rows if row.embedding], np.float32)
    assert np.array_equal(found, model.encode_document(["one", "three", "five"]))
    assert read_stamp(tmp_path / "in" / "a.parquet") is not None
    frame.where("embedding IS NOT NULL").write.parquet(str(tmp_path / "out"))
    (path,) = (tmp_path / "out").glob("*.parquet")
    assert read_stamp(path) is None
    with pytest.raises(InputError, match="has no stamp"):
        load_vectors(path)


@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "plain"])
def test_shards_of_every_precision_are_read(spark, tmp_path, model, fixed):
    """docs/corpora.md has the types. Spark has no float16, and says so."""
    (tmp_path / "d.txt").write_text("a\nb\n")
    for precision in PRECISIONS:
        output = str(tmp_path / precision)
        options = Options(selection=Selection(), prompt="", dim=8, precision=precision, fixed=fixed)
        embed_files([str(tmp_path / "d.txt")], output, model, options, show=False)
        if precision == "float16":
            with pytest.raises(Exception, match="float16|FLOAT16"):
                spark.read.parquet(output).collect()
            continue
        rows = spark.read.parquet(output).orderBy("index").collect()
        expected = model.encode(["a", "b"], prompt="", truncate_dim=8, precision=precision)
        assert np.array_equal(np.array([row.embedding for row in rows], expected.dtype), expected), precision


def test_frames_and_partitions_without_rows(spark):
    empty = frame_of(spark, []).transform(embed_udf())
    assert (empty.collect(), empty.columns) == ([], ["id", "text", "embedding", "embedding_reason"])
    few = frame_of(spark, ["one"], 4).transform(embed_udf()).collect()  # three partitions of four have none
    assert [len(row.embedding) for row in few] == [384]


def test_what_cannot_be_used_is_told_before_spark_starts(spark):
    frame = frame_of(spark, ["a"])
    for options, message in (
        ({"field": "body"}, "field = 'body'; the columns are 'id', 'text'"),
        ({"into": "id"}, "a column 'id' already"),
        ({"into": "Text"}, "a column 'Text' already"),
        ({"precision": "float16"}, "Spark has no type"),
        ({"truncate_dim": 1000}, "truncate_dim"),
    ):
        with pytest.raises(InputError, match=message):
            frame.transform(embed_udf(**options))


def test_memory_does_not_grow_with_the_rows_of_a_batch(spark):
    def peak():
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    found = {}
    for size in (10_000, 100):  # the greater one first: a worker's peak stays
        spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(size))
        frame = spark.range(1000, numPartitions=1).selectExpr("concat(id, repeat(' word', 10000)) as text")
        rows = frame.mapInArrow(in_worker(BatchOptions(), peak), "pid long, told long").collect()
        assert len(rows) == 1000
        found[size] = max(row.told for row in rows) / 1024
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(BATCH))
    # 50 MB of text in a batch, once as Arrow and never as a whole as strings and tokens.
    assert found[10_000] < 450, found
