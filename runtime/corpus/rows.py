"""Rows of a corpus: the text, the id and the kept columns of each, or the reason why it is rejected."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from moembed.corpus.sources import Source
from moembed.corpus.template import Template
from moembed.corpus.text_rows import Mark, Record, kind_of
from moembed.errors import InputError

ALL = "all"
DEFAULT_ID = "id"
BLOCK_ROWS = 4096
_BLOCK_CHARACTERS = 32 << 20
_BLOCK_BYTES = 256 << 20  # of kept columns; arrays with offsets of 32 bits hold 2 GiB
_READ_ROWS = 512
_MAX_INT = 1 << 63


@dataclass(frozen=True)
class Selection:
    """Choice of what is read of a row.

    Attributes:
        field: column with the text, where there is no template.
        template: makes the text of several columns.
        id: column with the id; empty for none.
        id_required: True if a row without an id is rejected.
        keep: columns to keep, as pairs of the name in the input and in the output.
        keep_all: True to keep all other columns too.
    """

    field: str = "text"
    template: Template | None = None
    id: str = DEFAULT_ID
    id_required: bool = False
    keep: tuple[tuple[str, str], ...] = ()
    keep_all: bool = False

    @property
    def text_fields(self) -> tuple[str, ...]:
        """Columns that the text is made of."""
        return self.template.fields if self.template else (self.field,)

    @property
    def own_fields(self) -> tuple[str, ...]:
        """Columns of the text and the id."""
        return tuple(dict.fromkeys((*self.text_fields, self.id) if self.id else self.text_fields))

    @property
    def read_fields(self) -> tuple[str, ...]:
        """Columns that are read, but for those that only `keep_all` keeps."""
        return tuple(dict.fromkeys((*self.own_fields, *(name for name, _ in self.keep))))

    def reads(self, name: str) -> bool:
        """Check whether a column is read."""
        return self.keep_all or name in self.read_fields

    @classmethod
    def parse_keep(cls, words: Sequence[str]) -> tuple[tuple[tuple[str, str], ...], bool]:
        """Read `--keep`: names with commas between them, `all`, and `NAME=NEW` for another name in the output.

        Raises:
            InputError: an empty name, or a column twice.
        """
        names = [name for word in words for name in word.split(",")]
        pairs = [
            (name.partition("=")[0], name.partition("=")[2] or name.partition("=")[0]) for name in names if name != ALL
        ]
        if any(not name for pair in pairs for name in pair):
            raise InputError("keep has an empty name: expected names with commas between them, or all")
        twice = next((name for name, _ in pairs if [first for first, _ in pairs].count(name) > 1), None)
        if twice is not None:
            raise InputError(f"keep names the column {twice!r} twice: name it once")
        return tuple(pairs), ALL in names


@dataclass
class Rows:
    """Rows in the order of the input. All sequences have one item per row.

    Attributes:
        files: numbers of the files.
        indices: numbers of the rows in the whole corpus, from 0.
        lines: lines in their files, from 1; 0 where files have no lines.
        texts: the texts; None for rejected rows.
        reasons: why rows are rejected; empty for others.
        ids: the ids; None where there is none.
        kept: name in the output -> values, a list or an Arrow array.
    """

    files: list[int]
    indices: list[int]
    lines: list[int]
    texts: list[str | None]
    reasons: list[str]
    ids: list[Any]
    kept: dict[str, Any]

    def __len__(self) -> int:
        return len(self.texts)

    def part(self, first: int, last: int) -> "Rows":
        """Return the rows from `first` up to `last`."""
        own = slice(first, last)
        kept = {name: values[own] for name, values in self.kept.items()}
        return Rows(
            self.files[own], self.indices[own], self.lines[own], self.texts[own], self.reasons[own], self.ids[own], kept
        )


@dataclass(frozen=True)
class Kept:
    """Column that is kept: its name in the input and in the output."""

    source: str
    name: str


def rows_of_records(
    records: Iterable[Record],
    source: Source,
    file: int,
    index: int,
    selection: Selection,
    kept: Sequence[Kept],
    *,
    strict_ids: bool,
) -> Iterator[Rows]:
    """Yield rows of a text file.

    Args:
        records: its records.
        source: the file.
        file: its number.
        index: number of the first record in the whole corpus.
        selection: what is read.
        kept: columns to keep.
        strict_ids: refuse ids that only JSON holds: with a lone surrogate, or beyond 64 bits.
    """
    records = iter(records)
    reader = RecordReader(source, selection, kept, strict_ids=strict_ids)
    while batch := list(islice(records, _READ_ROWS)):
        made = [reader.read(record) for record in batch]
        size = len(batch)
        yield Rows(
            [file] * size,
            list(range(index, index + size)),
            [record.line for record in batch],
            [text for text, _, _ in made],
            [reason for _, reason, _ in made],
            [own for _, _, own in made],
            {column.name: [_value(source, record.fields, column.source) for record in batch] for column in kept},
        )
        index += size


def _value(source: Source, fields: dict[str, Any] | None, name: str) -> Any:
    if fields is None:
        return None
    return fields[name] if name in fields else source.partitions.get(name)


class RecordReader:
    """Reader of the text and the id of records.

    Args:
        source: the file.
        selection: what is read.
        kept: columns to keep.
        strict_ids: refuse ids that only JSON holds: with a lone surrogate, or beyond 64 bits.
    """

    def __init__(
        self, source: Source, selection: Selection, kept: Sequence[Kept] = (), *, strict_ids: bool = False
    ) -> None:
        self._source, self._selection, self._strict = source, selection, strict_ids
        self._kept = [column.source for column in kept]
        self._is_csv = source.form in ("csv", "tsv")
        self._read = selection.read_fields

    def read(self, record: Record) -> tuple[str | None, str, Any]:
        """Return the text, the reason why the row is rejected, and the id; the text is None or the reason empty."""
        fields = record.fields
        if fields is None:
            return None, record.reason, None
        for name in self._read if record.twice else ():
            if name in record.twice:
                return None, f"the field {name!r} occurs more than once", None
        own, reason = self._id(fields)
        text: str | None = None
        if not reason:
            text, reason = self._text(fields)
        if not reason:
            reason = _invalid(text, "the text")
        for name in self._kept:
            if not reason:
                reason = _invalid_value(_value(self._source, fields, name), f"the kept field {name!r}")
        return (None if reason else text), reason, own

    def _id(self, fields: dict[str, Any]) -> tuple[Any, str]:
        name = self._selection.id
        if not name or self._source.form == "lines":
            return None, ""
        own = _value(self._source, fields, name)
        if own == "" and (self._is_csv or self._selection.id_required):
            own = None
        if own is None:
            return None, f"the id {name!r} is missing" if self._selection.id_required else ""
        number = isinstance(own, int | float) and not isinstance(own, bool) and math.isfinite(own)
        if not isinstance(own, str) and not number:
            return None, f"expected a string or a number as the id {name!r}, found {kind_of(own)}"
        if self._strict:
            if isinstance(own, float) or (isinstance(own, int) and not -_MAX_INT <= own < _MAX_INT):
                return None, f"the id {own} is no integer of 64 bits"
            if isinstance(own, str) and (reason := _invalid(own, "the id")):
                return None, reason
        return own, ""

    def _text(self, fields: dict[str, Any]) -> tuple[str | None, str]:
        if self._selection.template:
            values = {name: _value(self._source, fields, name) for name in self._selection.template.fields}
            return self._selection.template.render(values)
        name = "text" if self._source.form == "lines" else self._selection.field
        text = _value(self._source, fields, name)
        if isinstance(text, str):
            return text, ""
        names = ", ".join(map(repr, fields)) or "no fields"
        found = f"it is {kind_of(text)}" if name in fields else f"found {names}"
        return None, f"expected a string in the field {name!r}, {found}; choose another with --field"


def _invalid(text: str | None, what: str) -> str:
    """Return why a text is not valid Unicode; an empty string if it is."""
    try:
        (text or "").encode()
    except UnicodeEncodeError as error:
        code = ord(error.object[error.start])
        if 0xDC80 <= code <= 0xDCFF:
            return f"{what} has the byte {code - 0xDC00:02X} at character {error.start}, which is not UTF-8"
        return f"{what} has the lone surrogate U+{code:04X} at character {error.start}, which is not valid Unicode"
    return ""


def _invalid_value(value: Any, what: str) -> str:
    if isinstance(value, str):
        return _invalid(value, what)
    if isinstance(value, dict):
        return next(
            filter(None, (_invalid(key, what) or _invalid_value(item, what) for key, item in value.items())), ""
        )
    if isinstance(value, list):
        return next(filter(None, (_invalid_value(item, what) for item in value)), "")
    return ""


def blocks(parts: Iterable[Rows]) -> Iterator[Rows]:
    """Cut rows into blocks that depend on the rows alone, not on how they were read.

    A block ends after `BLOCK_ROWS` rows, at the row whose text makes it longer than 32 Mi characters, and before kept columns
    have more than 256 MiB.
    """
    gathered: list[Rows] = []
    count = characters = size = 0
    for part in parts:
        start = 0
        size += (own := sum(map(_bytes_of, part.kept.values())))
        if size > _BLOCK_BYTES and gathered:
            yield _merged(gathered)
            gathered, count, characters, size = [], 0, 0, own
        for position, text in enumerate(part.texts):
            count, characters = count + 1, characters + len(text or "")
            if count == BLOCK_ROWS or characters >= _BLOCK_CHARACTERS:
                gathered.append(part.part(start, position + 1))
                yield _merged(gathered)
                gathered, start, count, characters, size = [], position + 1, 0, 0, 0
        if start < len(part):
            gathered.append(part.part(start, len(part)))
    if gathered:
        yield _merged(gathered)


def _bytes_of(column: Any) -> int:
    """Estimate the size of a kept column."""
    if isinstance(column, list):
        return sum(len(value) for value in column if isinstance(value, str))
    return int(column.nbytes)


def _merged(parts: list[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    first = parts[0]

    def joined(name: str) -> list[Any]:
        return [item for part in parts for item in getattr(part, name)]

    files, indices, lines, texts, reasons, ids = map(joined, ("files", "indices", "lines", "texts", "reasons", "ids"))
    kept = {name: _concatenated([part.kept[name] for part in parts]) for name in first.kept}
    return Rows(files, indices, lines, texts, reasons, ids, kept)


def _concatenated(columns: list[Any]) -> Any:
    if any(isinstance(column, list) for column in columns):
        return [value for column in columns for value in (column if isinstance(column, list) else column.to_pylist())]
    import pyarrow

    return pyarrow.concat_arrays(columns)


def skip(parts: Iterable[Rows], rows: int) -> Iterator[Rows]:
    """Leave out the first rows."""
    for part in parts:
        if rows < len(part):
            yield part.part(rows, len(part)) if rows else part
        rows = max(rows - len(part), 0)


def take(parts: Iterable[Rows], rows: int) -> Iterator[Rows]:
    """Yield at most so many rows; reads nothing beyond the part with the last of them."""
    parts = iter(parts)
    while rows and (part := next(parts, None)) is not None:
        yield part.part(0, rows) if len(part) > rows else part
        rows -= min(rows, len(part))


def nearest(marks: Sequence[Mark], row: int) -> Mark:
    """Return the last mark at or before a row."""
    return next(mark for mark in reversed(marks) if mark.row <= row)
