"""What other libraries read of vectors in Parquet: `readers.py --write` puts the table into docs/stamps.md.

Each file has three vectors of eight components, and a stamp. A reader is given the file by name, and what it returns is compared
with what was written, component by component.
"""

import argparse
import tempfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from blocks import ROOT, Block

from moembed.stamps.arrow_files import VECTOR
from moembed.stamps.stamp import KEY

BLOCK = Block(ROOT / "docs" / "stamps.md", "readers", "python tests/benchmarks/readers.py --write")
DTYPES = ("float32", "float16", "int8", "uint8")
WIDTH = 8
STAMP = '{"model": "any"}'


def vectors(dtype: str) -> np.ndarray:
    """Return three vectors with values that each dtype can hold: fractions, negative ones, the largest and the smallest."""
    if np.dtype(dtype).kind == "f":
        return np.linspace(-1, 1, 3 * WIDTH).reshape(3, WIDTH).astype(dtype)
    limits = np.iinfo(dtype)
    return np.linspace(limits.min, limits.max, 3 * WIDTH).reshape(3, WIDTH).astype(dtype)


def write(path: Path, dtype: str, *, fixed: bool) -> None:
    """Write a file as `moembed embed` does: no dictionary, zstd, floats split by bytes."""
    values = pa.array(vectors(dtype).reshape(-1))
    item = pa.field("element", values.type, nullable=False)
    if fixed:
        column = pa.FixedSizeListArray.from_arrays(values, type=pa.list_(item, WIDTH))
    else:
        offsets = pa.array(np.arange(4, dtype=np.int32) * WIDTH)
        column = pa.ListArray.from_arrays(offsets, values, type=pa.list_(item))
    table = pa.table({VECTOR: column}).replace_schema_metadata({KEY: STAMP})
    encoding = {f"{VECTOR}.list.element": "BYTE_STREAM_SPLIT"} if dtype == "float32" else None
    pq.write_table(table, path, compression="zstd", use_dictionary=False, column_encoding=encoding)


def by_pyarrow(path: Path) -> tuple[str, list]:
    column = pq.read_table(path)[VECTOR]
    return str(column.type).replace("element: ", "").replace(" not null", ""), column.to_pylist()


def by_pandas(path: Path) -> tuple[str, list]:
    import pandas as pd

    column = pd.read_parquet(path)[VECTOR]
    return f"{column.dtype} of {column[0].dtype} arrays", [row.tolist() for row in column]


def by_polars(path: Path) -> tuple[str, list]:
    import polars as pl

    column = pl.read_parquet(path)[VECTOR]
    return str(column.dtype).replace("shape=(", "").replace(",))", ")"), column.to_list()


def by_duckdb(path: Path) -> tuple[str, list]:
    import duckdb

    with duckdb.connect() as db:
        rows = db.sql(f"SELECT {VECTOR} FROM '{path}'")
        return str(rows.types[0]), [list(row) for (row,) in rows.fetchall()]


def rewritten_by_pyarrow(path: Path, target: Path) -> None:
    pq.write_table(pq.read_table(path), target)


def rewritten_by_pandas(path: Path, target: Path) -> None:
    import pandas as pd

    pd.read_parquet(path).to_parquet(target)


def rewritten_by_polars(path: Path, target: Path) -> None:
    import polars as pl

    pl.read_parquet(path).write_parquet(target)


def rewritten_by_duckdb(path: Path, target: Path) -> None:
    import duckdb

    with duckdb.connect() as db:
        db.sql(f"COPY (SELECT * FROM '{path}') TO '{target}'")


# Name -> package, reader, and what it does when a file is read and written again.
READERS = {
    "pyarrow": ("pyarrow", by_pyarrow, rewritten_by_pyarrow),
    "pandas": ("pandas", by_pandas, rewritten_by_pandas),
    "Polars": ("polars", by_polars, rewritten_by_polars),
    "DuckDB": ("duckdb", by_duckdb, rewritten_by_duckdb),
}


def cell(read, path: Path, dtype: str) -> str:
    """Return the type that a reader gives the column, and a remark if the values are not those that were written."""
    try:
        found, values = read(path)
    except Exception as error:
        return f"refused ({type(error).__name__})"
    equal = np.array_equal(np.array(values, np.float64), vectors(dtype).astype(np.float64))
    return f"`{found}`" + ("" if equal else ", **other values**")


def rows() -> list[list[str]]:
    """Return the rows of the table, without its head."""
    made = []
    with tempfile.TemporaryDirectory() as folder:
        path, target = Path(folder) / "x.parquet", Path(folder) / "y.parquet"
        for fixed in (True, False):
            for dtype in DTYPES:
                write(path, dtype, fixed=fixed)
                made.append(
                    [f"{'fixed size' if fixed else 'plain'}, {dtype}"]
                    + [cell(read, path, dtype) for _, read, _ in READERS.values()]
                )
        write(path, "float32", fixed=True)
        kept = []
        for _, _, rewrite in READERS.values():
            rewrite(path, target)
            kept.append("yes" if KEY.encode() in (pq.read_metadata(target).metadata or {}) else "**no**")
    return [*made, ["stamp after rewriting", *kept]]


def table() -> str:
    """Return the block: versions, and the table in Markdown."""
    versions = ", ".join(f"{name} {metadata.version(package)}" for name, (package, _, _) in READERS.items())
    lines = [["lists in Parquet", *READERS], ["---"] * (len(READERS) + 1), *rows()]
    return f"\nMeasured with {versions}.\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the table into the page; otherwise print it")
    if parser.parse_args().write:
        BLOCK.write(table())
    else:
        print(table())
