"""Rows of text files: lines, JSONL, CSV and TSV.

A row that cannot be read has a reason in place of its fields, so that others go on. A file that cannot be read on is an error:
what follows a cut or a broken quotation is not known.
"""

import csv
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

from moembed.corpus.decompression import CutAfterLineError, decompressed
from moembed.corpus.sources import Source
from moembed.corpus.storage import reading
from moembed.errors import InputError

_MAX_CELL = 2**31 - 1  # characters; the csv module's default is 131,072
_BOM = b"\xef\xbb\xbf"
_ADVICE = "convert it to UTF-8 text first"
# First bytes of files that are not text, and what to do with such a file.
_NOT_TEXT = {
    b"\x1f\x8b": "it is gzip: zcat FILE | moembed embed --input-format ...",
    b"BZh": "it is bzip2: bzcat FILE | moembed embed --input-format ...",
    b"\xfd7zXZ": "it is xz: xzcat FILE | moembed embed --input-format ...",
    b"\x28\xb5\x2f\xfd": "it is zstd: zstdcat FILE | moembed embed --input-format ...",
    b"PK\x03\x04": "it is a zip archive or an office document: unpack it, or export it as text, first",
    b"%PDF-": "it is PDF: extract its text first",
    b"PAR1": "it is Parquet: name it .parquet, or pass --input-format parquet",
    b"ARROW1": "it is Arrow: name it .arrow, or pass --input-format arrow",
    b"\x93NUMPY": "it is a numpy array, which has no texts",
    b"\xff\xfe": "it is UTF-16: convert it to UTF-8 first",
    b"\xfe\xff": "it is UTF-16: convert it to UTF-8 first",
}
_KINDS = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "an array", dict: "an object"}


@dataclass(frozen=True)
class Mark:
    """Place in a file where a row starts.

    Attributes:
        row: number of the row in the file, from 0.
        offset: bytes of its content, unpacked, before it.
        line: lines before it.
    """

    row: int
    offset: int
    line: int


START = Mark(0, 0, 0)


class Record(NamedTuple):
    """Row of a text file.

    Attributes:
        line: line of the file where it starts, from 1.
        fields: name -> value, or None if the row cannot be read.
        reason: why it cannot be read.
        twice: names that occur more than once in it.
        after: place of the next row.
    """

    line: int
    fields: dict[str, Any] | None
    reason: str
    twice: frozenset[str]
    after: Mark


def kind_of(value: Any) -> str:
    """Name the JSON type of a value."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return f"{value}"
    return _KINDS.get(type(value), "null")


@contextmanager
def opened(source: Source, file: BinaryIO | None = None) -> Iterator[BinaryIO]:
    """Yield the content of a source.

    Args:
        source: the file.
        file: the open file, if the caller has it.

    Raises:
        InputError: it cannot be opened, or while it is read.
    """
    if file is not None:
        with decompressed(file, source.compression, source.name) as content:
            yield content
        return
    with reading(source.path, source.name) as raw, decompressed(raw, source.compression, source.name) as content:
        yield content


def records(
    source: Source, content: BinaryIO, mark: Mark = START, header: Callable[[list[str]], object] = len
) -> Iterator[Record]:
    """Yield the rows of a file from a place on.

    Args:
        source: the file.
        content: its content, unpacked, at its start.
        mark: the place.
        header: called with the header of CSV.

    Raises:
        InputError: the file is not of its format, cut, or damaged.
    """
    lines = _Lines(source, content)
    if source.form in ("csv", "tsv"):
        yield from _csv(source, lines, mark, header)
        return
    lines.go_to(mark)
    yield from (_jsonl if source.form == "jsonl" else _plain)(source, lines, mark)


class _Lines:
    """Lines of a file as bytes, with the place of the next one."""

    def __init__(self, source: Source, content: BinaryIO) -> None:
        self.name, self._content = source.name, content
        self._can_seek = source.compression is None and content.seekable()
        self.line, self.offset, self._start, self._last = 0, 0, b"", b"\n"

    def go_to(self, mark: Mark) -> None:
        """Continue at a mark, which is not before the current place."""
        left = mark.offset - self.offset
        if self._can_seek and left:
            self._content.seek(mark.offset)
        else:
            while left and (data := self._content.read(min(left, 1 << 20))):  # less if the file has changed
                left -= len(data)
        self.line, self.offset = mark.line, mark.offset

    def next(self) -> bytes:
        """Return the next line with its end; nothing at the end of the file."""
        try:
            line = self._content.readline()
        except EOFError:
            raise CutAfterLineError(self.line) from None
        if not self.offset:
            self._start = line
        self.offset += len(line)
        if line:
            self.line, self._last = self.line + 1, line
        return line.removeprefix(_BOM) if self.line == 1 else line

    def text(self, line: bytes, errors: str = "strict") -> str:
        """Decode a line.

        Raises:
            UnicodeDecodeError: it is not UTF-8.
            InputError: nor is the file text.
        """
        if self.line == 1 and line.startswith(b"%PDF-"):
            raise InputError(f"{self.name} is not text; {_NOT_TEXT[b'%PDF-']}")
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as error:
            for magic, advice in _NOT_TEXT.items():
                if self._start.startswith(magic):
                    found = f"{self.name}:{self.line}: not UTF-8 at byte {error.start} of the line"
                    raise InputError(f"{found}; {advice}") from None
            return line.decode("utf-8", errors)

    def is_cut(self) -> bool:
        """Check whether the last line that was read has no end."""
        return not self._last.endswith(b"\n")

    def mark(self, row: int) -> Mark:
        return Mark(row, self.offset, self.line)


def _plain(source: Source, lines: _Lines, mark: Mark) -> Iterator[Record]:
    row, undecided = mark.row, source.guessed and not mark.row
    while line := lines.next():
        fields, reason, row = None, "", row + 1
        try:
            text = lines.text(line).rstrip("\r\n")
        except UnicodeDecodeError as error:
            reason = _not_utf8(error)
        else:
            if undecided and text.strip():
                undecided = False
                _refuse_json(source.name, lines.line, text)
            if "\0" in text:
                reason = "found a NUL byte, so this is not text: convert it to UTF-8 text first"
            else:
                fields = {"text": text}
        yield Record(lines.line, fields, reason, frozenset(), lines.mark(row))


def _refuse_json(name: str, number: int, line: str) -> None:
    """Refuse lines that look like JSON records where no format was chosen."""
    if name.lower().endswith(".json") or _is_json(line):
        raise InputError(
            f"{name}:{number}: this looks like JSON, and no format was chosen: pass --input-format jsonl if every "
            "line is an object with a text, or --input-format lines if every line is a text itself (jq -c '.[]' turns "
            "an array into one object per line)"
        )


def _is_json(line: str) -> bool:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return line.strip() in ("{", "[")
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(part, dict) for part in value))


def _jsonl(source: Source, lines: _Lines, mark: Mark) -> Iterator[Record]:
    row = mark.row
    while line := lines.next():
        if not line.strip():
            continue
        number, row, fields, twice = lines.line, row + 1, None, frozenset[str]()
        try:
            fields, twice, reason = _object(lines.text(line))
        except UnicodeDecodeError as error:
            reason = _not_utf8(error)
        if fields is None and lines.is_cut():
            raise InputError(
                f"{source.name}:{number}: the last line has no end and is no JSON object ({reason}), so the file seems to be cut "
                f"after line {number - 1}: copy or download it again, or delete that line"
            )
        yield Record(number, fields, reason, twice, lines.mark(row))


def _object(line: str) -> tuple[dict[str, Any] | None, frozenset[str], str]:
    repeated: set[str] = set()

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        repeated.clear()  # the outermost object comes last
        if len(made) != len(pairs):
            names = [name for name, _ in pairs]
            repeated.update(name for name in made if names.count(name) > 1)
        return made

    try:
        value = json.loads(line, object_pairs_hook=members)
    except (ValueError, RecursionError) as error:
        return None, frozenset(), f"invalid JSON ({error})"
    if not isinstance(value, dict):
        return None, frozenset(), f"expected a JSON object, found {kind_of(value)}"
    return value, frozenset(repeated), ""


def _csv(source: Source, lines: _Lines, mark: Mark, tell: Callable[[list[str]], object]) -> Iterator[Record]:
    csv.field_size_limit(_MAX_CELL)

    def decoded() -> Iterator[str]:
        while line := lines.next():
            yield lines.text(line, "surrogateescape")

    text = decoded()
    try:
        delimiter, header = _header(source.form, text)
        tell(header)
        if mark.row:
            lines.go_to(mark)
        yield from _cells(source.name, lines, csv.reader(text, delimiter=delimiter, strict=True), header, mark.row)
    except csv.Error as error:
        raise InputError(f"{source.name}:{lines.line}: {error}") from error


def _header(form: str, text: Iterator[str]) -> tuple[str, list[str]]:
    """Return the delimiter and the names of the columns."""
    head = next(text, "")
    if head.startswith("sep=") and len(head.rstrip("\r\n")) == 5:  # written by spreadsheets
        delimiter, head = head[4], next(text, "")
    elif form == "tsv":
        delimiter = "\t"
    else:
        # Where commas are decimal points, spreadsheets put semicolons between the cells.
        delimiter = ";" if ";" in head and "," not in head else ","
    rows = csv.reader(itertools.chain([head], text), delimiter=delimiter, strict=True)
    return delimiter, next((cells for cells in rows if cells), [])


def _cells(name: str, lines: _Lines, rows: Iterable[list[str]], header: list[str], row: int) -> Iterator[Record]:
    repeated = frozenset(column for column in header if header.count(column) > 1)
    line = lines.line
    for cells in rows:
        started, line = line + 1, lines.line
        if not cells:
            continue
        row += 1
        if len(cells) == len(header):
            yield Record(started, dict(zip(header, cells, strict=True)), "", repeated, lines.mark(row))
            continue
        reason = f"the row has {len(cells)} cells, the header has {len(header)}"
        if lines.is_cut() and len(cells) < len(header):
            raise InputError(
                f"{name}:{started}: {reason}, and the line has no end, so the file seems to be cut after line {started - 1}: "
                "copy or download it again, or delete that line"
            )
        yield Record(started, None, reason, repeated, lines.mark(row))


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not UTF-8 at byte {error.start} of the line; {_ADVICE}"
