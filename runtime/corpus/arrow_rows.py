"""Rows of Parquet and Arrow files: only the needed columns are read, in batches, whatever the size of a row group."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from moembed.corpus.arrow_types import as_plain
from moembed.corpus.rows import Kept, Rows, Selection
from moembed.corpus.sources import Source
from moembed.corpus.storage import is_remote, remote
from moembed.corpus.text_rows import START, Mark
from moembed.errors import InputError, MoembedError, extra

_BATCH_ROWS = 1024
_BATCH_BYTES = 64 << 20
_BUFFER = 1 << 20


@contextmanager
def _errors(source: Source) -> Iterator[None]:
    with extra("data", f"reading {source.name}"):
        import pyarrow
    try:
        yield
    except MoembedError:  # of the block: an OutputError is an OSError
        raise
    except (pyarrow.ArrowException, OSError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{source.name} cannot be read as {source.form} ({reason}): it is cut, damaged or of another kind"
        ) from error


class ArrowFile:
    """Open Parquet or Arrow file.

    Attributes:
        schema: its `pyarrow.Schema`.
        rows: number of its rows; None for a stream.
    """

    def __init__(self, source: Source, handle: Any) -> None:
        self._source, self._handle = source, handle
        self._parquet = self._reader = self._stream = None
        self.rows: int | None = None
        if source.form == "parquet":
            import pyarrow.parquet as pq

            self._parquet = pq.ParquetFile(handle, pre_buffer=False, buffer_size=_BUFFER)
            self.schema, self.rows = self._parquet.schema_arrow, self._parquet.metadata.num_rows
            return
        from pyarrow import ArrowInvalid, ipc

        try:
            self._reader = ipc.open_file(handle)
            self._sizes = [self._reader.get_batch(index).num_rows for index in range(self._reader.num_record_batches)]
            self.schema, self.rows = self._reader.schema, sum(self._sizes)
        except ArrowInvalid:
            handle.seek(0)
            self._reader, self._stream = None, ipc.open_stream(handle)
            self.schema = self._stream.schema

    def marks(self, names: Sequence[str]) -> list[Mark]:
        """Return the first row of Parquet and the end of each row group, with the bytes of the columns `names` before it."""
        found = [START]
        if self._parquet is None:
            return found
        metadata = self._parquet.metadata
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            columns = map(group.column, range(group.num_columns))
            size = sum(
                column.total_uncompressed_size for column in columns if column.path_in_schema.partition(".")[0] in names
            )
            found.append(Mark(found[-1].row + group.num_rows, found[-1].offset + size, 0))
        return found

    def batches(self, names: Sequence[str], first: int) -> Iterator[tuple[int, Any]]:
        """Yield record batches of the columns `names`, each with the number of its first row, from row `first` on."""
        for start, batch in self._batches(names, first):
            skipped = max(first - start, 0)
            if skipped < batch.num_rows:
                yield start + skipped, batch.slice(skipped) if skipped else batch

    def _batches(self, names: Sequence[str], first: int) -> Iterator[tuple[int, Any]]:
        if self._parquet is not None:
            yield from self._of_parquet(self._parquet, names, first)
            return
        row = 0
        if self._reader is not None:
            for index, size in enumerate(self._sizes):
                if row + size > first:
                    whole = self._reader.get_batch(index).select(list(names))
                    for start in range(0, size, _BATCH_ROWS):
                        yield row + start, whole.slice(start, _BATCH_ROWS)
                row += size
            return
        for whole in self._stream or ():
            chosen = whole.select(list(names))
            for start in range(0, whole.num_rows, _BATCH_ROWS):
                yield row + start, chosen.slice(start, _BATCH_ROWS)
            row += whole.num_rows

    def _of_parquet(self, parquet: Any, names: Sequence[str], first: int) -> Iterator[tuple[int, Any]]:
        for group, (start, end) in enumerate(itertools.pairwise(self.marks(names))):
            row, size = start.row, end.row - start.row
            if end.row <= first or not size:
                continue
            # Batches of long rows are shorter, by the footer alone, so that they are the same from whatever row on.
            rows = min(max(size * _BATCH_BYTES // max(end.offset - start.offset, 1), 1), _BATCH_ROWS)
            for batch in parquet.iter_batches(rows, row_groups=[group], columns=list(names), use_threads=False):
                yield row, batch
                row += batch.num_rows


@contextmanager
def arrow_file(source: Source) -> Iterator[ArrowFile]:
    """Open a Parquet or Arrow file.

    Raises:
        InputError: it cannot be read, is cut or damaged.
        MissingExtraError: pyarrow is not installed.
    """
    with _errors(source):
        import pyarrow

        if is_remote(source.path):
            system, inner = remote(source.path)
            with system.open_input_file(inner) as file:
                yield ArrowFile(source, file)
        else:
            with pyarrow.OSFile(source.path) if source.form == "parquet" else pyarrow.memory_map(source.path) as file:
                yield ArrowFile(source, file)


def columns_of(schema: Any, source: Source, selection: Selection, kept: Sequence[Kept]) -> list[str]:
    """Return the columns of a file that are read."""
    wanted = dict.fromkeys((*selection.read_fields, *(column.source for column in kept)))
    return [name for name in wanted if name in schema.names and name not in source.partitions]


def rows_of_file(
    source: Source, file: int, base: int, first: int, selection: Selection, kept: Sequence[Kept], types: dict[str, Any]
) -> Iterator[Rows]:
    """Yield rows of a Parquet or Arrow file.

    Args:
        source: the file.
        file: its number.
        base: number of its row 0 in the whole corpus.
        first: number of the first row to yield, in the file.
        selection: what is read.
        kept: columns to keep.
        types: name in the output -> Arrow type of each kept column.

    Raises:
        InputError: the file cannot be read.
    """
    with _errors(source), arrow_file(source) as opened_file:
        names = columns_of(opened_file.schema, source, selection, kept)
        for start, batch in opened_file.batches(names, first):
            yield _rows(source, file, base + start, batch, selection, kept, types)


def _rows(
    source: Source, file: int, index: int, batch: Any, selection: Selection, kept: Sequence[Kept], types: dict[str, Any]
) -> Rows:
    size, reasons = batch.num_rows, [""] * batch.num_rows

    def reject(row: int, reason: str) -> None:
        reasons[row] = reasons[row] or reason

    columns = {}
    for name in selection.own_fields:
        columns[name], bad = _values(batch, source, name, size)
        for row, reason in bad.items():
            reject(row, f"the field {name!r} {reason}")
    ids = [None if own == "" and selection.id_required else own for own in columns.get(selection.id, [None] * size)]
    for row in _missing(ids) if selection.id_required else ():
        reject(row, f"the id {selection.id!r} is missing")
    arrays = {}
    for column in kept:
        arrays[column.name], bad_rows = _kept(batch, source, column.source, size, types[column.name])
        for row in bad_rows:
            reject(row, f"the kept field {column.source!r} is not UTF-8")
    texts: list[str | None] = []
    for row in range(size):
        text, reason = _text({name: values[row] for name, values in columns.items()}, selection)
        if reason:
            reject(row, reason)
        texts.append(None if reasons[row] else text)
    return Rows([file] * size, list(range(index, index + size)), [0] * size, texts, reasons, ids, arrays)


def _missing(values: list[Any]) -> list[int]:
    return [row for row, value in enumerate(values) if value is None]


def _text(values: dict[str, Any], selection: Selection) -> tuple[str | None, str]:
    if selection.template:
        return selection.template.render(values)
    text = values[selection.field]
    return text, f"the field {selection.field!r} is null" if text is None else ""


def _values(batch: Any, source: Source, name: str, size: int) -> tuple[list[Any], dict[int, str]]:
    if name in source.partitions:
        return [source.partitions[name]] * size, {}
    if name not in batch.schema.names:
        return [None] * size, {}
    array = batch.column(batch.schema.names.index(name))
    try:
        return array.to_pylist(), {}
    except UnicodeDecodeError:
        values: list[Any] = []
        bad = {}
        for row in range(size):
            try:
                values.append(array[row].as_py())
            except UnicodeDecodeError as error:
                values.append(None)
                bad[row] = f"is not UTF-8 at byte {error.start}"
        return values, bad


def _kept(batch: Any, source: Source, name: str, size: int, kind: Any) -> tuple[Any, list[int]]:
    import pyarrow

    if name in source.partitions:
        return pyarrow.array([source.partitions[name]] * size, kind), []
    if name not in batch.schema.names:
        return pyarrow.nulls(size, kind), []
    column = batch.column(batch.schema.names.index(name))
    try:
        array = as_plain(column, kind)
    except pyarrow.ArrowInvalid as error:  # an integer beyond 2^53 among floats
        raise InputError(
            f"{source.name}: column {name!r} is {column.type} and is kept as {kind}, the widest type of all files, but {error}: "
            "write it as one type in all files, or do not keep it"
        ) from error
    bad: list[int] = []
    try:
        array.validate(full=True)
    except pyarrow.ArrowInvalid:
        bad = [row for row in range(size) if not _is_valid(array.slice(row, 1))]
        array = array.take(pyarrow.array([None if row in frozenset(bad) else row for row in range(size)], "int64"))
    return array, bad


def _is_valid(array: Any) -> bool:
    import pyarrow

    try:
        array.validate(full=True)
    except pyarrow.ArrowInvalid:
        return False
    return True
