"""Writers of vectors: JSONL, CSV and npy. They write in sequence, without going back."""

import csv
import io
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from moembed.corpus.arrow_types import STREAM
from moembed.corpus.block import Block, Shape
from moembed.corpus.values import csv_cells, json_lines, json_values
from moembed.digits import json_list

FORMATS = ("parquet", "jsonl", "csv", "npy", "arrow")
SUFFIXES = {"parquet": ".parquet", "jsonl": ".jsonl", "csv": ".csv", "npy": ".npy", "arrow": ".arrow"}


class Writer(Protocol):
    """Writer of one file."""

    def write(self, block: Block) -> None:
        """Write vectors."""

    def close(self) -> None:
        """Write the end of the file; the file itself stays open."""


def _heads(block: Block, shape: Shape) -> Iterator[dict[str, Any]]:
    """Yield the fields of each vector but for the vector itself, in the order of JSONL."""
    vectors = block.vectors
    kept = {name: block.of_rows(json_values(values)) for name, values in block.rows.kept.items()}
    texts, ids = block.of_rows(block.rows.texts), block.of_rows(block.rows.ids)
    columns: tuple[NDArray[Any], ...] = (
        vectors.tokens,
        vectors.truncated,
        vectors.windows,
        vectors.starts,
        vectors.ends,
        vectors.scales,
    )
    numbers = zip(block.indices.tolist(), *map(np.ndarray.tolist, columns), strict=True)
    for at, (index, tokens, truncated, window, start, end, scale) in enumerate(numbers):
        head: dict[str, Any] = {"index": index} | ({} if ids[at] is None else {"id": ids[at]})
        head |= {name: values[at] for name, values in kept.items()}
        head |= {"text": texts[at], "tokens": tokens, "truncated": truncated}
        if shape.windows:
            head["window"] = window
        if shape.windows or (start, end) != (0, len(texts[at])):
            head |= {"start": start, "end": end}
        if shape.scaled:
            head["scale"] = scale
        yield head


class JsonlWriter:
    """Writer of JSONL: floats with the fewest digits that give the float32 back."""

    def __init__(self, out: BinaryIO, shape: Shape) -> None:
        self._out, self._shape = out, shape

    def write(self, block: Block) -> None:
        """Write vectors."""
        numbers = json_list(block.vectors.codes)
        heads = _heads(block, self._shape)
        self._out.write(json_lines([head | {"embedding": vector} for head, vector in zip(heads, numbers, strict=True)]))

    def close(self) -> None:
        """Do nothing: JSONL has no end."""


class CsvWriter:
    """Writer of CSV with a header."""

    def __init__(self, out: BinaryIO, shape: Shape) -> None:
        self._out, self._shape = out, shape
        self._kept = [column.name for column in shape.layout.kept]
        windows = ["window", "start", "end"] if shape.windows else []
        components = [f"d{i}" for i in range(shape.stored)]
        self._rows([["index", "id", *self._kept, "text", "tokens", "truncated", *windows, "scale", *components]])

    def write(self, block: Block) -> None:
        """Write vectors."""
        vectors, shape = block.vectors, self._shape
        kept = [block.of_rows(csv_cells(block.rows.kept[name])) for name in self._kept]
        windows: list[NDArray[Any]] = [vectors.windows, vectors.starts, vectors.ends] if shape.windows else []
        ids = ["" if own is None else own for own in block.of_rows(block.rows.ids)]
        columns: list[list[Any]] = [block.indices.tolist(), ids, *kept, block.of_rows(block.rows.texts)]
        columns += [
            vectors.tokens.tolist(),
            vectors.truncated.astype(int).tolist(),
            *(part.tolist() for part in windows),
        ]
        columns.append(json_list(vectors.scales))
        heads = zip(*columns, strict=True)
        self._rows([[*head, *numbers] for head, numbers in zip(heads, json_list(vectors.codes), strict=True)])

    def close(self) -> None:
        """Do nothing: CSV has no end."""

    def _rows(self, rows: list[list[Any]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        self._out.write(text.getvalue().encode("utf-8", "backslashreplace"))


class NpyWriter:
    """Writer of npy, whose header holds the number of vectors: they are written at the end."""

    def __init__(self, out: BinaryIO, shape: Shape) -> None:
        self._out, self._shape, self._parts = out, shape, [np.empty((0, shape.stored), shape.dtype)]

    def write(self, block: Block) -> None:
        """Keep vectors."""
        self._parts.append(block.vectors.codes)

    def close(self) -> None:
        """Write all vectors."""
        shape = (sum(map(len, self._parts)), self._shape.stored)
        header = {"fortran_order": False, "descr": self._shape.dtype.str, "shape": shape}
        np.lib.format.write_array_header_1_0(self._out, header)
        for part in self._parts:
            self._out.write(np.ascontiguousarray(part).tobytes())


class IdsWriter:
    """Writer of the rows beside an npy file: a line of JSON for each vector, without the vector and the text."""

    def __init__(self, out: BinaryIO, shape: Shape) -> None:
        self._out, self._shape = out, shape

    def write(self, block: Block) -> None:
        """Write the rows of vectors."""
        heads = list(_heads(block, self._shape))
        for head in heads:
            del head["text"]
        self._out.write(json_lines(heads))

    def close(self) -> None:
        """Do nothing: JSONL has no end."""


def writer(form: str, out: BinaryIO, shape: Shape) -> Writer:
    """Return the writer of a format.

    Args:
        form: one of `FORMATS`, or `STREAM`.
        out: binary file, written in sequence.
        shape: what is written.
    """
    if form == "parquet":
        from moembed.corpus.tables import ParquetWriter

        return ParquetWriter(out, shape)
    if form in ("arrow", STREAM):
        from moembed.corpus.tables import ArrowWriter

        return ArrowWriter(out, shape, stream=form == STREAM)
    kinds: dict[str, Callable[[BinaryIO, Shape], Writer]] = {"jsonl": JsonlWriter, "csv": CsvWriter, "npy": NpyWriter}
    return kinds[form](out, shape)
