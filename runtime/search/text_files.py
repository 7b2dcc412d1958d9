"""Text files under the paths that a user names, and why others are skipped."""

import errno
import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from moembed.errors import InputError

SUFFIXES = (".md", ".markdown", ".txt", ".rst")
MOST_BYTES = 64 * 2**20
_SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__", "build", "dist", "site-packages"})
# Documents that somebody who searches a folder would expect to be read.
_DOCUMENTS = {
    ".ipynb": "a notebook",
    ".pdf": "a PDF document",
    ".rtf": "an RTF document",
    ".epub": "an e-book",
    **dict.fromkeys((".doc", ".docx", ".xls", ".xlsx", ".ppt", ".pptx"), "an Office document"),
    **dict.fromkeys((".odt", ".ods", ".odp"), "an OpenDocument file"),
}
_MAGIC = {
    b"%PDF-": _DOCUMENTS[".pdf"],
    b"%!PS": "a PostScript document",
    b"{\\rtf": _DOCUMENTS[".rtf"],
    b"PK\x03\x04": "a ZIP archive, or an Office document",
    b"\xd0\xcf\x11\xe0": _DOCUMENTS[".doc"],
    b"\x1f\x8b": "a gzip file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"\x28\xb5\x2f\xfd": "a Zstandard file",
    b"SQLite format 3\0": "an SQLite database",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
    b"\xff\xfe": "UTF-16, not UTF-8 text",
    b"\xfe\xff": "UTF-16, not UTF-8 text",
}
_NOTEBOOK = re.compile(r'\s*\{.*"nbformat"\s*:', re.DOTALL)
# A picture inside the text; its bytes say nothing.
_DATA_URI = re.compile(r"(data:[\w.+-]+/[\w.+-]+;base64,)[A-Za-z0-9+/=]{64,}")


class Skipped(NamedTuple):
    """A file that is not read, and why."""

    path: Path
    reason: str


def text_files(paths: Sequence[Path], *, skipped: Callable[[Skipped], None]) -> Iterator[tuple[Path, str]]:
    """Yield each text file once, in order, with its text.

    Text is normalized to NFC, and pictures inside it (`data:` addresses) are left out.

    Args:
        paths: files of any suffix, and folders, which are searched for `SUFFIXES`; hidden folders, those that hold what
            tools made, and links to folders are left out.
        skipped: told of each file or folder in a folder that cannot be read as text.

    Raises:
        InputError: a path does not exist, or a file that was named itself is not UTF-8 text.
    """
    seen = set()
    for path in paths:
        if os.path.isdir(path):  # noqa: PTH112 Path.is_dir raises where a folder may not be entered
            files, named = _walk(path, skipped), False
        elif os.path.lexists(path):
            files, named = iter([path]), True
        else:
            raise InputError(f"no file or folder {path}")
        for file in files:
            real = os.path.realpath(file)
            if real in seen:
                continue
            seen.add(real)
            try:
                text = _read(file, special=named)
            except _Unreadable as error:
                if named:
                    raise InputError(f"{file} cannot be searched: it is {error}") from error
                skipped(Skipped(file, str(error)))
            else:
                yield file, text


class _Unreadable(Exception):  # noqa: N818 it is no fault, but a reason
    """What a file is instead of text."""


def _read(file: Path, *, special: bool) -> str:
    """The text of a file; what is no regular file, such as a pipe, is opened only if it is `special`."""
    if (kind := _DOCUMENTS.get(file.suffix.lower())) is not None:
        raise _Unreadable(kind)
    try:
        mode = file.stat().st_mode
        if not stat.S_ISREG(mode) and not (special and stat.S_ISFIFO(mode)):
            raise _Unreadable("not a regular file")
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            raise _Unreadable("a broken link" if file.is_symlink() else "gone") from error
        raise _Unreadable(f"unreadable ({error.strerror})") from error
    if len(content) > MOST_BYTES:
        raise _Unreadable(f"larger than {MOST_BYTES >> 20} MiB")
    start = content[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    if (kind := next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)) is not None:
        raise _Unreadable(kind)
    if b"\0" in content:
        raise _Unreadable("binary: it holds NUL bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Unreadable(f"not UTF-8 text (byte {error.start})") from error
    if _NOTEBOOK.match(text) and '"cells"' in text:
        raise _Unreadable(_DOCUMENTS[".ipynb"])
    return unicodedata.normalize("NFC", _DATA_URI.sub(r"\1…", text))


def _walk(folder: Path, skipped: Callable[[Skipped], None]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        skipped(Skipped(Path(error.filename), f"unreadable ({error.strerror})"))

    for root, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED_FOLDERS)
        for name in sorted(names):
            if Path(name).suffix.lower() in (*SUFFIXES, *_DOCUMENTS):
                yield Path(root, name)
