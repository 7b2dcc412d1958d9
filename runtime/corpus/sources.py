"""Input files of a corpus, in one order on every machine.

A folder stands for its data files, in the order of their relative paths by code point. Names that start with `.` or `_` are
skipped, folders of such names too; links to folders are not followed. Other files without a known suffix are skipped and told.
"""

import fnmatch
import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from moembed.corpus.storage import STDIN, is_remote, list_remote
from moembed.errors import InputError
from moembed.files.addresses import scheme_of

FORMS = ("lines", "jsonl", "csv", "tsv", "parquet", "arrow")
COLUMNAR = frozenset({"parquet", "arrow"})
_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jl": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Source:
    """Input file.

    Attributes:
        path: path or `s3://` address; `-` for stdin.
        form: one of `FORMS`.
        compression: `gzip`, `zstd` or None.
        guessed: True if nothing says that the file has lines of text.
        partitions: columns in the names of its folders, as Hive writes them.
        label: name in messages, if it is not the path.
    """

    path: str
    form: str
    compression: str | None = None
    guessed: bool = False
    partitions: dict[str, str | None] = field(default_factory=dict)
    label: str = ""

    @property
    def name(self) -> str:
        """Name in messages."""
        return self.label or self.path


def find(inputs: Sequence[str], form: str | None, note: Callable[[str], object]) -> list[Source]:
    """Return the files that inputs stand for.

    Args:
        inputs: paths of files, folders and globs, `s3://` addresses of the same, or `-` for stdin.
        form: one of `FORMS` for all files; None for what their names say.
        note: called with a sentence about files that are skipped.

    Raises:
        InputError: nothing is there, a folder has files of several formats, or an address has another scheme.
    """
    found: list[Source] = []
    for name in inputs:
        found += _found(name, form, note)
    paths = [source.path for source in found]
    if paths.count(STDIN) > 1:
        raise InputError("stdin is named twice: name it once")
    return found


def _found(name: str, form: str | None, note: Callable[[str], object]) -> list[Source]:
    if name == STDIN:
        return [Source(STDIN, form or "lines", guessed=form is None, label="stdin")]
    if is_remote(name):
        return _remote(name, form, note)
    if scheme := scheme_of(name):
        raise InputError(
            f"{name}: {scheme}:// is not read, only local paths and s3://: copy the files first, or mount their store"
        )
    if Path(name).is_dir():
        return _of_folder(name, sorted(_below(name), key=_order), form, note)
    if _GLOB.search(name) and not os.path.lexists(name):
        matches = glob.glob(name, recursive=True)  # noqa: PTH207  (keeps the given form of the path)
        base = _fixed_part(name)
        files = sorted((p for p in matches if not _is_hidden(p, base) and not _is_below_link(p, base)), key=_order)
        if not files:
            raise InputError(f"{name}: no file matches; names that start with . or _ are skipped")
        listed = [
            inner for path in files for inner in (sorted(_below(path), key=_order) if Path(path).is_dir() else [path])
        ]
        return [_named(path, form, _partitions(path)) for path in dict.fromkeys(listed) if form or _is_data(path)]
    return [_named(name, form, _partitions(name))]


def _below(folder: str) -> Iterator[str]:
    for root, folders, names in os.walk(folder):
        folders[:] = [inner for inner in folders if inner[0] not in "._"]
        yield from (os.path.join(root, name) for name in names if name[0] not in "._")  # noqa: PTH118  (keeps the given form)


def _of_folder(name: str, files: Iterable[str], form: str | None, note: Callable[[str], object]) -> list[Source]:
    data: list[str] = []
    others: list[str] = []
    for path in files:
        known = _form_of(path)[0]
        wanted = known is not None if form is None else known in (form, None)
        (data if wanted else others).append(path)
    sources = [_named(path, form, _partitions(path)) for path in data]
    forms = sorted({source.form for source in sources})
    if len(forms) > 1:
        raise InputError(
            f"{name} has files of several formats ({', '.join(forms)}): choose one with --input-format, or name files by a glob"
        )
    if others and sources:
        some = ", ".join(PurePosixPath(path).name for path in others[:3]) + (", ..." if len(others) > 3 else "")
        note(f"skipped in {name}: {len(others)} files of another suffix ({some})")
    if not sources:
        raise InputError(
            f"{name}: the folder has no data files (.parquet, .jsonl, .csv, ...); names with . or _ in front are skipped"
        )
    return sources


def _remote(name: str, form: str | None, note: Callable[[str], object]) -> list[Source]:
    address, _, query = name.partition("?") if "=" in name else (name, "", "")
    suffix = f"?{query}" if query else ""
    pattern = _GLOB.search(address) is not None
    base = _fixed_part(address) if pattern else address
    is_folder, listed = list_remote(base + suffix)
    shown = [path for path in listed if not _is_hidden(path, base)]
    if pattern:
        shown = [path for path in shown if fnmatch.fnmatchcase(path, address)]
        if not shown:
            raise InputError(f"{name}: no file matches; names that start with . or _ are skipped")
    if pattern or is_folder:
        sources = _of_folder(name, sorted(shown, key=_order), form, note)
    else:
        sources = [_named(address, form, _partitions(address))]
    return [replace(source, path=source.path + suffix, label=source.path) for source in sources]


def _fixed_part(pattern: str) -> str:
    """Return the folders in front of the first wildcard."""
    parts = pattern.split("/")
    first = next(index for index, part in enumerate(parts) if _GLOB.search(part))
    return "/".join(parts[:first])


def _is_below_link(path: str, base: str) -> bool:
    """Check whether a folder between `base` and a path is a link: it may lead back."""
    return any(len(str(folder)) > len(base) and folder.is_symlink() for folder in Path(path).parents)


def _is_hidden(path: str, base: str) -> bool:
    return any(part[0] in "._" for part in path[len(base) :].split("/") if part not in ("", ".", ".."))


def _order(path: str) -> list[str]:
    return path.replace(os.sep, "/").split("/")


def _form_of(path: str) -> tuple[str | None, str | None]:
    name = PurePosixPath(path.replace(os.sep, "/"))
    compression = _COMPRESSIONS.get(name.suffix.lower())
    return _SUFFIXES.get((PurePosixPath(name.stem) if compression else name).suffix.lower()), compression


def _is_data(path: str) -> bool:
    return _form_of(path)[0] is not None or path.endswith(".txt")


def _named(path: str, form: str | None, partitions: dict[str, str | None]) -> Source:
    known, compression = _form_of(path)
    chosen = form or known or "lines"
    if compression and known is None and form is None:
        compression = None  # named as something else, such as x.tar.gz: refused by its first bytes
    if chosen in COLUMNAR and compression:
        raise InputError(f"{path}: {chosen} files are compressed inside; unpack this one first")
    return Source(path, chosen, compression, form is None and known is None, partitions)


def _partitions(path: str) -> dict[str, str | None]:
    pairs = (part.split("=", 1) for part in _order(path)[:-1] if "=" in part)
    return {unquote(name): None if value == _NULL_PARTITION else unquote(value) for name, value in pairs if name}
