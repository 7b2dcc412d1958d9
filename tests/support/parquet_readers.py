"""Vectors of Parquet files as other programs read them."""

import pyarrow.parquet as pq

READERS = ("pyarrow", "pandas", "polars", "duckdb")


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
    import duckdb

    relation = duckdb.sql(f"SELECT embedding FROM '{path}' ORDER BY index")
    return [row[0] for row in relation.fetchall()], str(relation.types[0])
