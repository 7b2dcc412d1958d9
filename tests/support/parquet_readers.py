"""Vectors of Parquet files as other programs read them."""

from importlib.util import find_spec

import pyarrow.parquet as pq

READERS = tuple(name for name in ("pyarrow", "pandas", "polars", "duckdb") if find_spec(name))


def installed():
    """Names of the readers that can be tried here."""
    return (*READERS, "spark") if find_spec("pyspark") else READERS


def read_vectors(reader, path):
    """Vectors of a Parquet file as lists, and the type that a reader sees."""
    if reader == "pyarrow":
        table = pq.read_table(path)
        return table["embedding"].to_pylist(), str(table.schema.field("embedding").type)
    if reader == "pandas":
        import pandas as pd

        column = pd.read_parquet(path)["embedding"]
        return [row.tolist() for row in column], f"object of {column[0].dtype}"
    if reader == "polars":
        import polars as pl

        series = pl.read_parquet(path)["embedding"]
        return series.to_list(), str(series.dtype)
    if reader == "spark":
        return _by_spark(path)
    import duckdb

    relation = duckdb.sql(f"SELECT embedding FROM '{path}' ORDER BY index")
    return [row[0] for row in relation.fetchall()], str(relation.types[0])


def _by_spark(path):
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    session = builder.config("spark.driver.bindAddress", "127.0.0.1").getOrCreate()
    frame = session.read.parquet(str(path)).select("embedding")
    return [list(row[0]) for row in frame.collect()], frame.schema["embedding"].dataType.simpleString()
