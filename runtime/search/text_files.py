"""Text files in the paths of a user, and the reasons for skipping others."""

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
MAX_BYTES = 64 * 2**20
_SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__", "build", "dist", "site-packages"})
# Documents that users may expect to be searched: they are reported as skipped.
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
# An embedded picture.
_DATA_URI = re.compile(r"(data:[\w.+-]+/[\w.+-]+;base64,)[A-Za-z0-9+/=]{64,}")


class Skipped(NamedTuple):
    """Skipped file and the reason."""

    path: Path
    reason: str


def text_files(paths: Sequence[Path], *, skipped: Callable[[Skipped], None]) -> Iterator[tuple[Path, str]]:
    """Yield each text file once, in order, with its text.

    Text is normalized to NFC, and embedded pictures (`data:` URIs) are removed.

    Args:
        paths: files with any suffix, and folders, which are searched for files with `SUFFIXES`. Hidden folders, folders of
            build tools, and links to folders are not entered.
        skipped: called for each file or folder in a folder that cannot be read as text.

    Raises:
        InputError: a path does not exist, or a file that was named by itself is not UTF-8 text.
    """
    seen = set()
    for path in paths:
        if os.path.isdir(path):  # noqa: PTH112 Path.is_dir raises if a folder is not accessible
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
            except _NotText as error:
                if named:
                    raise InputError(f"{file} cannot be searched: it is {error}") from error
                skipped(Skipped(file, str(error)))
            else:
                yield file, text


class _NotText(Exception):  # noqa: N818 a reason, not an error
    """File that is not text; the message says what it is."""


def _read(file: Path, *, special: bool) -> str:
    """Read the text of a regular file, or also of a FIFO if `special`."""
    if (kind := _DOCUMENTS.get(file.suffix.lower())) is not None:
        raise _NotText(kind)
    try:
        mode = file.stat().st_mode
        if not stat.S_ISREG(mode) and not (special and stat.S_ISFIFO(mode)):
            raise _NotText("not a regular file")
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            raise _NotText("a broken link" if file.is_symlink() else "gone") from error
        raise _NotText(f"unreadable ({error.strerror})") from error
    if len(content) > MAX_BYTES:
        raise _NotText(f"larger than {MAX_BYTES >> 20} MiB")
    start = content[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    if (kind := next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)) is not None:
        raise _NotText(kind)
    if b"\0" in content:
        raise _NotText("binary: it holds NUL bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _NotText(f"not UTF-8 text (byte {error.start})") from error
    if _NOTEBOOK.match(text) and '"cells"' in text:
        raise _NotText(_DOCUMENTS[".ipynb"])
    return unicodedata.normalize("NFC", _DATA_URI.sub(r"\1…", text))


def _walk(folder: Path, skipped: Callable[[Skipped], None]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        skipped(Skipped(Path(error.filename), f"unreadable ({error.strerror})"))

    for root, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED_FOLDERS)
        for name in sorted(names):
            if Path(name).suffix.lower() in (*SUFFIXES, *_DOCUMENTS):
                yield Path(root, name)
