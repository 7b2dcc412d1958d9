"""Three ways to embed a column in Spark: seconds, rows that were computed, and nulls. `python tests/benchmarks/spark_udfs.py`.

`mapInArrow` is what `moembed.integrations.spark.embed_udf` uses. Each way is warmed up, then measured with one action on a frame
that uses the vector in two columns and a filter.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as f
from pyspark.sql.types import ArrayType, FloatType

from moembed.integrations.batches import open_model
from moembed.integrations.spark import embed_udf


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
        "mapInArrow": counted,
        "pandas_udf": lambda frame: frame.withColumn("embedding", with_pandas("text")),
        "predict_batch_udf": lambda frame: frame.withColumn("embedding", batches("text")),
    }


def main() -> None:
    """Measure each way, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1000)
    rows = parser.parse_args().rows
    os.environ["PYSPARK_PYTHON"] = sys.executable
    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    texts = [(row, None if row % 10 == 3 else f"text {row}" + " with some more words" * 8) for row in range(rows)]
    frame = spark.createDataFrame(texts, "id long, text string").repartition(4).cache()
    frame.count()
    print("| way | seconds | texts that reach Python | null vectors |\n|---|---|---|---|")
    counter = spark.sparkContext.accumulator(0)
    for name, add in ways(counter).items():
        made = add(frame)
        made.limit(10).collect()
        before, start = counter.value, time.perf_counter()
        used = made.withColumn("a", f.col("embedding")[0]).withColumn("b", f.col("embedding")[1])
        found = used.filter(f.col("a").isNull() | (f.col("a") > -2)).collect()
        nulls = sum(row.embedding is None for row in found)
        print(
            f"| {name} | {time.perf_counter() - start:.1f} | {counter.value - before} of {rows} | {nulls} |", flush=True
        )
    spark.stop()


if __name__ == "__main__":
    main()
