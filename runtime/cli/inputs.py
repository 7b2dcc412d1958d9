"""Input of `moembed embed`: texts with their ids, as lines, JSONL, CSV or TSV, in UTF-8."""

import csv
import json
import math
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from moembed.errors import InputError

INPUT_FORMATS = ("lines", "jsonl", "csv", "tsv")
STDIN = "-"
_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".jl": "jsonl", ".csv": "csv", ".tsv": "tsv"}
_DELIMITERS = {"csv": ",", "tsv": "\t"}
_MAX_CELL = 2**31 - 1  # characters; the csv module's default is 131,072
# First bytes of files that are not text, and what to do with such a file.
_NOT_TEXT = {
    b"\x1f\x8b": "it is gzip: zcat FILE | moembed embed --input-format ...",
    b"BZh": "it is bzip2: bzcat FILE | moembed embed --input-format ...",
    b"\xfd7zXZ": "it is xz: xzcat FILE | moembed embed --input-format ...",
    b"\x28\xb5\x2f\xfd": "it is zstd: zstdcat FILE | moembed embed --input-format ...",
    b"PK\x03\x04": "it is a zip archive or an office document: unpack it, or export it as text, first",
    b"%PDF-": "it is PDF: extract its text first",
    b"PAR1": "it is Parquet: write its texts as JSONL or CSV first",
    b"ARROW1": "it is Arrow: write its texts as JSONL or CSV first",
    b"\x93NUMPY": "it is a numpy array, which has no texts",
    b"\xff\xfe": "it is UTF-16: convert it to UTF-8 first",
    b"\xfe\xff": "it is UTF-16: convert it to UTF-8 first",
}


RecordId = str | int | float | None


@dataclass(frozen=True, slots=True)
class Record:
    """Text and its id in the source, if it has one."""

    text: str
    id: RecordId = None


def read(source: str, form: str | None, *, field: str, id_field: str) -> Iterator[Record]:
    """Stream the records of a file or of stdin.

    Args:
        source: path, or "-" for stdin.
        form: one of `INPUT_FORMATS`; None for the format of the suffix, else lines.
        field: field or column with the text.
        id_field: field or column with the id, which may be missing.

    Raises:
        InputError: the source cannot be read, is not UTF-8 text, or does not have the format.
    """
    form, name = form or _SUFFIXES.get(Path(source).suffix.lower()), "stdin" if source == STDIN else source
    lines = _lines(source, name)
    if form == "jsonl":
        return _jsonl(lines, name, field, id_field)
    if form in _DELIMITERS:
        return _csv(lines, name, field, id_field, _DELIMITERS[form])
    return _plain(lines if form else _refuse_json(lines, name), name)


def _plain(lines: Iterator[str], name: str) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise InputError(f"{name}:{number}: found a NUL byte, so this is not text: convert it to UTF-8 text first")
        yield Record(line.rstrip("\r\n"))


def _refuse_json(lines: Iterator[str], name: str) -> Iterator[str]:
    """Yield lines, but refuse those that look like JSON records, since no format was chosen."""
    undecided = True
    for number, line in enumerate(lines, 1):
        if undecided and line.strip():
            undecided = False
            if name.lower().endswith(".json") or _is_json(line):
                raise InputError(
                    f"{name}:{number}: this looks like JSON, and no format was chosen: pass --input-format jsonl if every "
                    "line is an object with a text, or --input-format lines if every line is a text itself (jq -c '.[]' turns "
                    "an array into one object per line)"
                )
        yield line


def _is_json(line: str) -> bool:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return line.strip() in ("{", "[")
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(part, dict) for part in value))


def _jsonl(lines: Iterator[str], name: str, field: str, id_field: str) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{name}:{number}"
        try:
            record = json.loads(line, object_pairs_hook=_Members)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{place}: invalid JSON ({error})") from error
        if not isinstance(record, _Members):
            raise InputError(f"{place}: expected a JSON object with a field {field!r}, found {_kind(record)}")
        text = record.only(field, place)
        if not isinstance(text, str):
            names = ", ".join(map(repr, record.names())) or "no fields"
            found = f"it is {_kind(text)}" if record.has(field) else f"found {names}"
            raise InputError(f"{place}: expected a string in the field {field!r}, {found}; choose another with --field")
        yield Record(text, _id(record.only(id_field, place), id_field, place))


class _Members(list[tuple[str, Any]]):
    """Members of a JSON object in order; names may repeat."""

    def names(self) -> list[str]:
        return [name for name, _ in self]

    def has(self, name: str) -> bool:
        return name in self.names()

    def only(self, name: str, place: str) -> Any:
        values = [value for member, value in self if member == name]
        if len(values) > 1:
            raise InputError(f"{place}: the field {name!r} occurs {len(values)} times")
        return values[0] if values else None


def _id(value: Any, name: str, place: str) -> RecordId:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if value is None or isinstance(value, str) or number:
        return value  # type: ignore[no-any-return]
    raise InputError(f"{place}: expected a string or a number as the id {name!r}, found {_kind(value)}")


def _kind(value: Any) -> str:
    kinds = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "an array"}
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value}"
    return "an object" if isinstance(value, _Members) else kinds.get(type(value), "null")


def _csv(lines: Iterator[str], name: str, field: str, id_field: str, delimiter: str) -> Iterator[Record]:
    csv.field_size_limit(_MAX_CELL)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        rows = ((f"{name}:{reader.line_num}", row) for row in reader if row)
        place, header = next(rows, ("", []))
        if not header:
            return
        text, id_column = _column(header, field, place), _column(header, id_field, place)
        if text is None:
            columns = ", ".join(map(repr, header))
            raise InputError(f"{place}: expected a column {field!r}, found {columns}; choose another with --field")
        for place, row in rows:
            if len(row) != len(header):
                raise InputError(f"{place}: the row has {len(row)} cells, the header has {len(header)}")
            yield Record(row[text], None if id_column is None else row[id_column] or None)
    except csv.Error as error:
        raise InputError(f"{name}:{reader.line_num}: {error}") from error


def _column(header: list[str], name: str, place: str) -> int | None:
    if header.count(name) > 1:
        raise InputError(f"{place}: the header has {header.count(name)} columns {name!r}")
    return header.index(name) if name in header else None


def _lines(source: str, name: str) -> Iterator[str]:
    """Yield decoded lines with their line ends."""
    start = b""
    with ExitStack() as stack:
        try:
            for number, line in enumerate(stack.enter_context(_opened(source)), 1):
                start = start or line
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise _not_text(f"{name}:{number}: not UTF-8 at byte {error.start} of the line", start) from None
                if number == 1 and text.startswith("%PDF-"):
                    raise _not_text(f"{name} is not text", start)
                yield text
        except OSError as error:
            raise InputError(f"{name} cannot be read: {error.strerror or error}") from error


def _opened(source: str) -> AbstractContextManager[IO[bytes]]:
    if source != STDIN:
        return Path(source).open("rb")
    if sys.stdin is None:
        raise InputError("stdin is closed: pass texts as arguments, or files with -i")
    return nullcontext(sys.stdin.buffer)


def _not_text(found: str, start: bytes) -> InputError:
    hints = (hint for magic, hint in _NOT_TEXT.items() if start.startswith(magic))
    return InputError(f"{found}; {next(hints, 'convert it to UTF-8 text first')}")
