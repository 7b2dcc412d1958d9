"""Three ways to embed a column in Spark: seconds, texts that reach Python, and null vectors.

    python tests/benchmarks/spark_udfs.py --publish

`mapInArrow` is what `moembed.integrations.spark.embed_udf` uses. Each way is warmed up. Then each in turn is measured with one
action on a frame that uses the vector in two columns and a filter; the median of the rounds counts. `--publish` writes the table
into docs/scale.md.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from blocks import ROOT, Block
from common import machine
from pyspark.sql import SparkSession
from pyspark.sql import functions as f
from pyspark.sql.types import ArrayType, FloatType

from moembed.integrations.batches import open_model
from moembed.integrations.spark import embed_udf

TABLE = Block(ROOT / "docs" / "scale.md", "ways", "python tests/benchmarks/spark_udfs.py --publish")


def ways(counter: Any) -> dict[str, Callable[[Any], Any]]:
    """Return how each way adds the column `embedding`; `counter` counts the texts that reach Python."""
    import pandas as pd
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql.functions import pandas_udf

    def vectors(texts: list[str | None]) -> list[Any]:
        counter.add(len(texts))
        good = [text for text in texts if text is not None]
        made = iter(open_model(None, None, 1).encode_document(good))
        return [None if text is None else next(made) for text in texts]

    @pandas_udf(ArrayType(FloatType()))
    def with_pandas(texts: pd.Series) -> pd.Series:
        return pd.Series(vectors([None if pd.isna(text) else text for text in texts]))

    def predictor() -> Callable[[Any], Any]:
        import numpy as np

        return lambda texts: np.stack(vectors(["" if text is None else str(text) for text in texts]))

    batches = predict_batch_udf(predictor, return_type=ArrayType(FloatType()), batch_size=512)

    def counted(frame: Any) -> Any:
        def count(parts: Any) -> Any:
            for part in parts:
                counter.add(part.num_rows)
                yield part

        return frame.mapInArrow(count, frame.schema).transform(embed_udf())

    return {
        "mapInArrow (`embed_udf`)": counted,
        "pandas_udf": lambda frame: frame.withColumn("embedding", with_pandas("text")),
        "predict_batch_udf": lambda frame: frame.withColumn("embedding", batches("text")),
    }


def measured(add: Callable[[Any], Any], frame: Any, counter: Any) -> tuple[float, int, int]:
    """Return the seconds of an action that uses the vector, the texts that reached Python, and the null vectors."""
    before, start = counter.value, time.perf_counter()
    made = add(frame)
    used = made.withColumn("a", f.col("embedding")[0]).withColumn("b", f.col("embedding")[1])
    found = used.filter(f.col("a").isNull() | (f.col("a") > -2)).collect()
    seconds = time.perf_counter() - start
    return seconds, counter.value - before, sum(row.embedding is None for row in found)


def table(rows: int, results: dict[str, list[tuple[float, int, int]]], where: str) -> str:
    """Return the table of the rounds of each way, measured on the machine `where`."""
    rounds = len(next(iter(results.values())))
    lines = [
        f"{where}. {rows:,} rows, one of ten without a text, 2 workers, median of {rounds} rounds.",
        "",
        "| way | seconds | texts that reach Python | null vectors |",
        "|---|---:|---:|---:|",
    ]
    for name, own in results.items():
        _, texts, nulls = own[0]
        seconds = statistics.median(one[0] for one in own)
        lines.append(f"| {name} | {seconds:.1f} | {texts:,} | {nulls:,} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure each way, print the table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--publish", action="store_true", help="rewrite docs/scale.md")
    options = parser.parse_args()
    os.environ["PYSPARK_PYTHON"] = sys.executable
    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    texts = [
        (row, None if row % 10 == 3 else f"text {row}" + " with some more words" * 8) for row in range(options.rows)
    ]
    frame = spark.createDataFrame(texts, "id long, text string").repartition(4).cache()
    frame.count()
    counter = spark.sparkContext.accumulator(0)
    added = ways(counter)
    for add in added.values():
        add(frame).limit(10).collect()
    results: dict[str, list[tuple[float, int, int]]] = {name: [] for name in added}
    for _ in range(options.rounds):
        for name, add in added.items():
            results[name].append(measured(add, frame, counter))
    spark.stop()
    found = table(options.rows, results, machine(open_model(None, None, 1)))
    print(found)
    if options.publish:
        TABLE.write(found)


if __name__ == "__main__":
    main()
