"""Lines of text files, plain or gzipped, and JSON objects on them; errors name the file and the line."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moembed.errors import InputError


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number (from 1) and text of every line that is not blank; a file with suffix `.gz` is decompressed.

    Raises:
        InputError: the file cannot be read or is not UTF-8.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as raw:
            for number, line in enumerate(raw, 1):
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    message = f"{path}:{number}: not UTF-8 at byte {error.start} of the line; convert it first"
                    raise InputError(message) from None
                if text.strip():
                    yield number, text
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def json_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and JSON object of every line.

    Raises:
        InputError: the file cannot be read, or a line is not a JSON object.
    """
    for number, line in numbered_lines(path):
        try:
            value = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}:{number}: not JSON ({error})") from error
        if not isinstance(value, dict):
            raise InputError(f"{path}:{number}: expected a JSON object, found {type(value).__name__}")
        yield number, value


def string_field(record: dict[str, Any], field: str, path: Path, number: int) -> str:
    """Return the string in a field; an integer, such as an id, becomes a string.

    Raises:
        InputError: the field is missing, is not a string, or has a lone surrogate.
    """
    value = record.get(field)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        found = type(value).__name__ if field in record else f"only {', '.join(record) or 'nothing'}"
        raise InputError(f"{path}:{number}: expected a string in field {field!r}, found {found}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(f"{path}:{number}: field {field!r} is not valid Unicode (lone surrogate)") from None
    return value
