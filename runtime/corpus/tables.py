"""Writers of vectors as tables: Parquet, and the stream of Arrow.

Columns: `index`, `id` if there are ids, the kept ones, `tokens`, `truncated`, `window`, `start` and `end` where a text may have
several vectors, `scale` of integers, and `embedding`. The schema's metadata holds the stamp.
"""

from typing import Any, BinaryIO

import numpy as np

from moembed.corpus.block import Block, Shape
from moembed.corpus.values import typed_values
from moembed.stamps.stamp import KEY, ROWS_KEY

_VECTOR = "embedding"
# Measured on unit vectors of 384 float32: 3.4 bytes a component, 3.7 without, 4.1 with the writer's default of dictionaries.
# Some readers lack this encoding for float16.
_ENCODINGS = {np.dtype(np.float32): "BYTE_STREAM_SPLIT"}
_LEVEL = 1  # of zstd: higher ones gain nothing on the bits of floats


def schema_of(shape: Shape) -> Any:
    """Return the `pyarrow.Schema` of the output."""
    import pyarrow as pa

    item = pa.field("element", pa.from_numpy_dtype(shape.dtype), nullable=False)
    fields = [pa.field("index", pa.int64(), nullable=False)]
    if shape.layout.id_type:
        fields.append(pa.field("id", pa.int64() if shape.layout.id_type == "int64" else pa.string()))
    fields += [pa.field(column.name, shape.layout.types[column.name]) for column in shape.layout.kept]
    fields += [pa.field("tokens", pa.int32(), nullable=False), pa.field("truncated", pa.bool_(), nullable=False)]
    if shape.windows:
        fields.append(pa.field("window", pa.int32(), nullable=False))
        fields += [pa.field(name, pa.int64(), nullable=False) for name in ("start", "end")]
    if shape.scaled:
        fields.append(pa.field("scale", pa.float32(), nullable=False))
    vector = pa.list_(item, shape.stored) if shape.fixed else pa.list_(item)
    fields.append(pa.field(_VECTOR, vector, nullable=False))
    return pa.schema(fields, metadata={KEY: shape.stamp})


def table_of(block: Block, shape: Shape, schema: Any) -> Any:
    """Return vectors as a `pyarrow.RecordBatch`."""
    import pyarrow as pa

    vectors = block.vectors
    rows = pa.array(vectors.rows)
    columns: dict[str, Any] = {
        "index": block.indices,
        "tokens": vectors.tokens,
        "truncated": vectors.truncated,
        "window": vectors.windows,
        "start": vectors.starts,
        "end": vectors.ends,
        "scale": vectors.scales,
    }
    kind = schema.field(_VECTOR).type
    flat = pa.array(np.ascontiguousarray(vectors.codes).reshape(-1))
    if shape.fixed:
        columns[_VECTOR] = pa.FixedSizeListArray.from_arrays(flat, type=kind)
    else:
        offsets = np.arange(len(vectors.codes) + 1, dtype=np.int32) * np.int32(shape.stored)
        columns[_VECTOR] = pa.ListArray.from_arrays(pa.array(offsets), flat, type=kind)
    # Rejected rows may hold what Arrow does not, so they are left out first.
    if shape.layout.id_type:
        columns["id"] = pa.array(block.of_rows(block.rows.ids), schema.field("id").type)
    for column in shape.layout.kept:
        values, kind = block.rows.kept[column.name], shape.layout.types[column.name]
        columns[column.name] = (
            typed_values(block.of_rows(values), kind) if isinstance(values, list) else values.take(rows)
        )
    arrays = []
    for field in schema:
        values = columns[field.name]
        arrays.append(pa.array(values, field.type) if isinstance(values, np.ndarray) else values)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


class ParquetWriter:
    """Writer of Parquet: a row group for each block, zstd, and no dictionary of components."""

    def __init__(self, out: BinaryIO, shape: Shape) -> None:
        self._schema, self._shape = schema_of(shape), shape
        import pyarrow.parquet as pq

        others = [name for name in self._schema.names if name != _VECTOR]
        encoding = _ENCODINGS.get(shape.dtype)
        path = f"{_VECTOR}.list.element"
        self._writer = pq.ParquetWriter(
            out,
            self._schema,
            compression="zstd",
            compression_level=_LEVEL,
            use_dictionary=[name for name in others if name != "index"],
            column_encoding={path: encoding} if encoding else None,
            write_statistics=others,
        )
        self._rows = 0

    def write(self, block: Block) -> None:
        """Write a row group."""
        if rows := len(block.vectors.rows):
            self._writer.write_batch(table_of(block, self._shape, self._schema))
            self._rows += rows

    def close(self) -> None:
        """Write the footer."""
        self._writer.add_key_value_metadata({ROWS_KEY: str(self._rows)})
        self._writer.close()


class ArrowWriter:
    """Writer of an Arrow IPC file or stream."""

    def __init__(self, out: BinaryIO, shape: Shape, *, stream: bool) -> None:
        self._schema, self._shape = schema_of(shape), shape
        from pyarrow import ipc

        self._writer = (ipc.new_stream if stream else ipc.new_file)(out, self._schema)

    def write(self, block: Block) -> None:
        """Write a record batch."""
        if len(block.vectors.rows):
            self._writer.write_batch(table_of(block, self._shape, self._schema))

    def close(self) -> None:
        """Write the end of the stream."""
        self._writer.close()
