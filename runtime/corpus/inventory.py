"""Inventory of a corpus: digest, rows, columns and places to start from, of every file, before the first row is computed.

It takes one pass over the content of all files, which finds cut and damaged ones, and shows whether a corpus is still the same.
"""

import base64
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

from moembed.corpus.arrow_rows import arrow_file
from moembed.corpus.rows import Selection
from moembed.corpus.sources import COLUMNAR, Source
from moembed.corpus.storage import reading, size_of
from moembed.corpus.text_rows import START, Mark, kind_of, opened, records
from moembed.errors import InputError
from moembed.files.records import read_record

_MARK_ROWS = 8192
_PIECE = 1 << 20
_INT64 = 1 << 63


@dataclass
class File:
    """What is known of a file.

    Attributes:
        path: its path, which decides nothing.
        form: one of `FORMS`.
        size: bytes.
        sha256: digest of its bytes.
        rows: number of its rows.
        marks: places to start from, the first at its first row, the last behind its last row. In Parquet, ends of row groups,
            whose offsets are bytes of the columns of the text; in Arrow only the first.
        names: its columns, in order.
        kinds: column -> kind of value (see `_kind`) -> line where it occurs first. For formats without types.
        repeated: columns whose name occurs more than once.
        schema: of Parquet and Arrow, in base64; empty for others.
    """

    path: str
    form: str
    size: int = 0
    sha256: str = ""
    rows: int = 0
    marks: list[Mark] = field(default_factory=lambda: [START])
    names: list[str] = field(default_factory=list)
    kinds: dict[str, dict[str, int]] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)
    schema: str = ""

    @property
    def arrow_schema(self) -> Any:
        """The schema of a Parquet or Arrow file, as a `pyarrow.Schema`."""
        import pyarrow

        return pyarrow.ipc.read_schema(pyarrow.py_buffer(base64.b64decode(self.schema)))


@dataclass(frozen=True)
class Inventory:
    """What is known of all files of a corpus."""

    files: tuple[File, ...]

    @property
    def rows(self) -> int:
        """Number of all rows."""
        return sum(file.rows for file in self.files)

    def to_json(self) -> str:
        """Return it as JSON; equal inventories give equal bytes."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes, name: str) -> "Inventory":
        """Read an inventory.

        Raises:
            InputError: it is none.
        """
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise InputError(f"{name} is damaged ({error}): delete it, and run the command again") from error
        return read_record(cls, raw, name, error=InputError, remedy="delete it, and run the command again")


def take_inventory(
    sources: Sequence[Source], selection: Selection, advance: Callable[[int], object] = lambda _bytes: None
) -> Inventory:
    """Read all files once.

    Args:
        sources: the files.
        selection: what is read of a row.
        advance: called with numbers of bytes that were read.

    Raises:
        InputError: a file cannot be read, is cut or damaged.
    """
    return Inventory(tuple(_file(source, selection, advance) for source in sources))


def check_digest(source: Source, file: File) -> bool:
    """Check whether a file still has the bytes of an inventory."""
    return size_of(source.path) == file.size and _digest(source, lambda _: None) == file.sha256


def _file(source: Source, selection: Selection, advance: Callable[[int], object]) -> File:
    if source.form in COLUMNAR:
        with arrow_file(source) as opened_file:
            schema, rows = opened_file.schema, opened_file.rows
            if rows is None:  # an Arrow stream
                rows = sum(batch.num_rows for _, batch in opened_file.batches([], 0))
            marks = opened_file.marks(selection.text_fields)
        file = _columnar(source, schema)
        file.marks = marks
        file.rows, file.size, file.sha256 = rows, size_of(source.path), _digest(source, advance)
        return file
    with reading(source.path) as raw:
        counted = _Digesting(raw, advance)
        with opened(source, io.BufferedReader(counted, _PIECE)) as content:
            file = _text(source, content, selection)
        while counted.read(_PIECE):
            continue
    file.size, file.sha256 = counted.size, counted.digest.hexdigest()
    return file


def _columnar(source: Source, schema: Any) -> File:
    names = list(schema.names)
    encoded = base64.b64encode(schema.remove_metadata().serialize().to_pybytes()).decode()
    repeated = sorted({name for name in names if names.count(name) > 1})
    return File(source.name, source.form, names=[*names, *source.partitions], repeated=repeated, schema=encoded)


def _text(source: Source, content: BinaryIO, selection: Selection) -> File:
    file = File(source.name, source.form)
    names: dict[str, None] = {"text": None} if source.form == "lines" else {}
    repeated: set[str] = set()

    def header(columns: list[str]) -> None:
        names.update(dict.fromkeys(columns))
        repeated.update(name for name in columns if columns.count(name) > 1)

    end = START
    for record in records(source, content, header=header):
        end = record.after
        file.rows = end.row
        if source.form == "jsonl" and record.fields is not None:
            names.update(dict.fromkeys(record.fields))
            _note_kinds(file.kinds, record.fields, record.line, selection)
        if file.rows % _MARK_ROWS == 0:
            file.marks.append(end)
    if file.marks[-1].row < end.row:
        file.marks.append(end)
    file.names, file.repeated = [*names, *source.partitions], sorted(repeated)
    return file


def _note_kinds(kinds: dict[str, dict[str, int]], fields: dict[str, Any], line: int, selection: Selection) -> None:
    for name, value in fields.items():
        if selection.reads(name):
            found = kinds.setdefault(name, {})
            if (kind := _kind(value)) not in found:
                found[kind] = line


def _kind(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return "an integer" if -_INT64 <= value < _INT64 else "an integer beyond 64 bits"
    return "a number" if isinstance(value, float) else kind_of(value)


def _digest(source: Source, advance: Callable[[int], object]) -> str:
    with reading(source.path) as raw:
        counted = _Digesting(raw, advance)
        while counted.read(_PIECE):
            continue
    return counted.digest.hexdigest()


class _Digesting(io.RawIOBase):
    """File whose bytes are hashed as they are read."""

    def __init__(self, raw: BinaryIO, advance: Callable[[int], object]) -> None:
        self._raw, self._advance = raw, advance
        self.digest, self.size = hashlib.sha256(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._raw.read(len(buffer))
        buffer[: len(data)] = data
        self.digest.update(data)
        self.size += len(data)
        self._advance(len(data))
        return len(data)
