"""Spark: a DataFrame with a column of vectors added, by `DataFrame.mapInArrow`.

`mapInArrow` is an operator of its own in Spark's plan, so that a row is computed once, however many columns and filters use its
vector; Spark may compute a user-defined function of a column again for each. Rows pass through Python as Arrow, nulls included.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Unpack

from moembed.errors import InputError, extra
from moembed.integrations.batches import BatchEncoder, BatchKeywords, BatchOptions
from moembed.precision import Precision

# Spark has neither unsigned bytes nor half floats.
_PRECISIONS: tuple[Precision, ...] = ("float32", "int8", "binary")


def embed_udf(**options: Unpack[BatchKeywords]) -> Callable[[Any], Any]:
    """Return a function that adds a column of vectors to a DataFrame: `frame.transform(embed_udf(field="text"))`.

    Vectors are `array<float>`, or `array<tinyint>` of integers. A Python worker of Spark opens the model once, with as many
    threads as its task has CPUs (`spark.task.cpus`). Workers of one node share the weights, which are a mapped file. Texts of a
    batch are computed in blocks of limited length, whatever `spark.sql.execution.arrow.maxRecordsPerBatch` is. Two actions
    compute the vectors twice: write them, or cache the frame.

    Args:
        options: `moembed.integrations.batches.BatchOptions` describes them.

    Raises:
        InputError: an option cannot be used.
        BundleError: the model cannot be opened.
        SourceError: there is no such model.
        MissingExtraError: pyspark is not installed.
    """
    with extra("spark", "moembed.integrations.spark"):
        from pyspark.sql import types  # noqa: F401
    given = BatchOptions(**options)
    if given.precision not in _PRECISIONS:
        raise InputError(
            f"precision = {given.precision!r}, for which Spark has no type; expected one of {', '.join(_PRECISIONS)}"
        )
    # This process opens the model too, so that a wrong option is told at once, and workers refuse another model.
    encoder = BatchEncoder(given, threads=1, fixed=False)
    expected = replace(given, stamp=encoder.stamp.to_json())

    def embed(frame: Any) -> Any:
        encoder.check(frame.columns)
        return frame.mapInArrow(_Partition(expected), _schema(frame, encoder))

    return embed


class _Partition:
    """Adds vectors to the batches of a partition, in a Python worker."""

    def __init__(self, options: BatchOptions) -> None:
        self._options = options

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yield a batch for each batch."""
        encoder = BatchEncoder(self._options, threads=_task_cpus(), fixed=False)
        for batch in batches:
            yield encoder(batch)


def _task_cpus() -> int:
    from pyspark import TaskContext

    context = TaskContext.get()
    return max(context.cpus(), 1) if context is not None else 1


def _schema(frame: Any, encoder: BatchEncoder) -> Any:
    from pyspark.sql import types as t

    kinds = {"_scale": t.FloatType(), "_truncated": t.BooleanType(), "_reason": t.StringType()}
    vector, *others = encoder.columns()
    item = t.FloatType() if encoder.encoder.dtype.kind == "f" else t.ByteType()
    added = [t.StructField(vector.name, t.ArrayType(item, containsNull=False))]
    added += [t.StructField(field.name, kinds[field.name.removeprefix(vector.name)]) for field in others]
    return t.StructType([*frame.schema.fields, *added])
