"""Vectors and stamps in Parquet and Arrow files."""

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moembed.errors import InputError, OutputError, extra
from moembed.files.destination import writing
from moembed.stamps.stamp import KEY, ROWS_KEY, Stamp

VECTOR = "embedding"
_OTHERS = ("id", "index", "scale")
_REMEDY = "embed the texts again"


class ArrowFile:
    """Parquet or Arrow file with a column of vectors.

    Args:
        path: the file.

    Attributes:
        rows: number of rows.
        schema: `pyarrow.Schema`.

    Raises:
        InputError: it cannot be read.
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(self, path: Path) -> None:
        with extra("data", f"reading {path.name}"):
            import pyarrow as pa
        self._path = path
        try:
            open_file = _open_parquet if path.suffix.lower() in (".parquet", ".pq") else _open_arrow
            self.schema, self.rows, self._metadata, self._read = open_file(path)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path} cannot be read: {error}") from error

    @property
    def stamp(self) -> Stamp | None:
        """Stamp in the metadata; None if there is none.

        Raises:
            InputError: the stamp is damaged, or the file has more rows than the stamp was written for.
        """
        text = self._metadata.get(KEY.encode())
        if text is None:
            return None
        stamp = Stamp.from_json(text, str(self._path))
        stamped = self._metadata.get(ROWS_KEY.encode(), b"")
        if stamped.isdigit() and int(stamped) < self.rows:
            raise InputError(
                f"{self._path} has {self.rows} rows, and its stamp is for {int(stamped)}: another program joined files and kept "
                f"the stamp of one; join them with moembed.load_vectors and save_vectors, or {_REMEDY}"
            )
        return stamp

    def stored(self) -> tuple[int, str]:
        """Return the number of items of the first vector, and their dtype.

        Raises:
            InputError: there is no column of vectors.
        """
        found = self._matrix(self._columns([VECTOR], 1)[VECTOR])
        return found.shape[1], str(found.dtype)

    def read(self) -> tuple[NDArray[Any], list[Any] | None, NDArray[np.float32] | None]:
        """Return the vectors `[n, items]`, and ids and scales if there are columns of these names.

        Raises:
            InputError: there is no column of vectors, or a row has no vector or one of another width.
        """
        table = self._columns([VECTOR, *(name for name in _OTHERS if name in self.schema.names)], None)
        ids = next((table[name].to_pylist() for name in ("id", "index") if name in table.column_names), None)
        scales = table["scale"].to_numpy().astype(np.float32) if "scale" in table.column_names else None
        return self._matrix(table[VECTOR]), ids, scales

    def _columns(self, names: list[str], rows: int | None) -> Any:
        """Return columns as a `pyarrow.Table`: of the first rows, or of all."""
        import pyarrow as pa

        self._check_column()
        try:
            return self._read(names, rows)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{self._path} cannot be read: {error}") from error

    def _check_column(self) -> None:
        if self.schema.names.count(VECTOR) != 1:
            raise InputError(
                f"{self._path} has no single column {VECTOR!r}: it has {', '.join(self.schema.names) or 'none'}"
            )

    def _matrix(self, column: Any) -> NDArray[Any]:
        """Return a column of lists, of fixed size or not, as an array `[rows, items]`."""
        import pyarrow as pa
        import pyarrow.types as kinds

        kind = column.type.storage_type if isinstance(column.type, pa.BaseExtensionType) else column.type
        lists = kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind)
        if not lists or not (kinds.is_floating(kind.value_type) or kinds.is_integer(kind.value_type)):
            raise InputError(f"{self._path}: the column {VECTOR!r} is {column.type}; expected lists of numbers")
        parts = [self._chunk(chunk) for chunk in column.chunks if len(chunk)]
        widths = {part.shape[1] for part in parts}
        if len(widths) > 1:
            raise InputError(f"{self._path} has vectors of different widths: {', '.join(map(str, sorted(widths)))}")
        if parts:
            return np.concatenate(parts)
        none = pa.array([], kind.value_type).to_numpy(zero_copy_only=False)  # to_pandas_dtype may need pandas
        return np.empty((0, getattr(kind, "list_size", 0)), none.dtype)

    def _chunk(self, chunk: Any) -> NDArray[Any]:
        import pyarrow as pa
        import pyarrow.compute as pc

        if chunk.null_count:
            raise InputError(f"{self._path} has {chunk.null_count} rows without a vector: filter them out first")
        storage = chunk.storage if isinstance(chunk.type, pa.BaseExtensionType) else chunk
        lengths = pc.unique(pc.list_value_length(storage)).to_pylist()
        if len(lengths) > 1:
            raise InputError(f"{self._path} has vectors of different widths: {', '.join(map(str, sorted(lengths)))}")
        items = storage.flatten()
        if items.null_count:
            raise InputError(f"{self._path} has vectors with missing components: {_REMEDY}")
        return np.asarray(items.to_numpy(zero_copy_only=False)).reshape(len(chunk), lengths[0])


def write_parquet(
    path: Path, vectors: NDArray[Any], stamp: Stamp, ids: Sequence[Any] | None, scales: NDArray[np.float32] | None
) -> None:
    """Write vectors as a column of lists of fixed size, with the stamp in the metadata. The file appears whole or not at all.

    Args:
        path: the file.
        vectors: `[n, items]`.
        stamp: their stamp.
        ids: n strings or integers.
        scales: `[n]` float32.

    Raises:
        InputError: the ids are not of one type.
        OutputError: the file cannot be written.
        MissingExtraError: pyarrow is not installed.
    """
    with extra("data", f"writing {path.name}"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    columns = {}
    if ids is not None:
        try:
            columns["id"] = pa.array(ids)
        except pa.ArrowException as error:
            raise InputError(f"the ids cannot be a column of {path.name}: {error}") from error
    if scales is not None:
        columns["scale"] = pa.array(scales)
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    columns[VECTOR] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    metadata = {KEY: stamp.to_json(), ROWS_KEY: str(len(vectors))}
    table = pa.table(columns).replace_schema_metadata(metadata)
    with writing(path) as out:
        try:
            pq.write_table(table, out, compression="zstd", use_dictionary=[name for name in columns if name != VECTOR])
        except pa.ArrowException as error:
            raise OutputError(f"cannot write {path}: {error}") from error


# Schema, number of rows, metadata, and a function that reads columns of the first rows, or of all.
_Opened = tuple[Any, int, dict[bytes, bytes], Callable[[list[str], int | None], Any]]


def _open_parquet(path: Path) -> _Opened:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path, memory_map=True)
    # The keys of the file itself count, over those of the Arrow schema in it.
    metadata = dict(file.schema_arrow.metadata or {}) | dict(file.metadata.metadata or {})

    def read(names: list[str], rows: int | None) -> Any:
        if rows is None:
            return file.read(columns=names)
        schema = pa.schema([file.schema_arrow.field(name) for name in names])
        return pa.Table.from_batches(islice(file.iter_batches(rows, columns=names), 1), schema)

    return file.schema_arrow, file.metadata.num_rows, metadata, read


def _open_arrow(path: Path) -> _Opened:
    import pyarrow as pa
    from pyarrow import ipc

    # Mapped, so that only what is used is read.
    mapped = pa.memory_map(str(path))
    try:
        table = ipc.open_file(mapped).read_all()
    except pa.ArrowInvalid:
        mapped.seek(0)
        table = ipc.open_stream(mapped).read_all()

    def read(names: list[str], rows: int | None) -> Any:
        return table.select(names).slice(0, rows)

    return table.schema, table.num_rows, dict(table.schema.metadata or {}), read
