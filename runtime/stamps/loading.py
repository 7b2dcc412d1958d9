"""Files of vectors: their stamps, and loading and saving vectors with them."""

import json
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moembed.arguments import flag
from moembed.arguments import path as path_of
from moembed.errors import InputError, OutputError, shown
from moembed.files.destination import writing
from moembed.files.untrusted import open_regular
from moembed.stamps.arrow_files import VECTOR, ArrowFile, write_parquet
from moembed.stamps.sidecar import SUFFIX, read_run_stamp, read_sidecar, write_sidecar
from moembed.stamps.stamp import Stamp
from moembed.stamps.stamped import DTYPES, StampedVectors, check_same, check_stored

TABLES = (".parquet", ".pq", ".arrow", ".arrows", ".feather", ".ipc")  # their metadata holds the stamp
_LINES = (".jsonl", ".ndjson", ".jl")
_LOADED = (*TABLES, ".npy", *_LINES)
_FORMS = (*_LOADED, ".csv")
_IDS = ".ids.jsonl"


class _Content(NamedTuple):
    vectors: NDArray[Any]
    ids: list[Any] | None
    scales: NDArray[np.float32] | None


def vector_files(path: Path) -> list[Path]:
    """Return a file, or the files of vectors below a folder, in the order of their names.

    Files and folders whose names start with `.` or `_`, sidecars and files of ids are left out.

    Raises:
        InputError: no such file or folder, or no file of vectors in it.
    """
    if not path.is_dir():
        if not path.exists():
            raise InputError(f"no file or folder {path}")
        return [path]
    found = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in _FORMS
        and not file.name.endswith((SUFFIX, _IDS))
        and not any(part.startswith((".", "_")) for part in file.relative_to(path).parts)
        and file.is_file()
    )
    if not found:
        raise InputError(f"no file of vectors in {path}: expected files that end with {', '.join(_FORMS)}")
    return found


def read_stamp(path: Path) -> Stamp | None:
    """Return the stamp of a file, from its metadata or its sidecar. Width and dtype of its first vector are checked.

    Returns:
        The stamp; None if there is none, for example because another program has rewritten the file.

    Raises:
        InputError: the stamp is damaged, or belongs to another file or to other vectors; or the file cannot be read.
        MissingExtraError: a Parquet or Arrow file, and pyarrow is not installed.
    """
    suffix = path.suffix.lower()
    if suffix in TABLES:
        table = ArrowFile(path)
        stamp = table.stamp or read_sidecar(path) or read_run_stamp(path)
        if stamp is not None and table.rows:
            check_stored(*table.stored(), stamp, str(path))
        return stamp
    stamp = read_sidecar(path) or read_run_stamp(path)
    if stamp is not None and suffix == ".npy":
        vectors = _npy(path, mapped=True)
        check_stored(vectors.shape[1], str(vectors.dtype), stamp, str(path))
    return stamp


def load_vectors(path: str | PathLike[str], *, allow_unstamped: bool = False) -> StampedVectors:
    """Load vectors and their stamp from Parquet, Arrow, npy or JSONL, or from all such files of a folder.

    Args:
        path: a file or a folder.
        allow_unstamped: load files of which none has a stamp. Nothing is known of their vectors, and nothing is checked.

    Returns:
        The vectors in the order of the files' names. Ids are those of the column or field `id`, else of `index`.

    Raises:
        InputError: a file has no stamp, files have different stamps, or a stamp does not agree with its vectors.
        MissingExtraError: a Parquet or Arrow file, and pyarrow is not installed.
    """
    given = path_of("path", path)
    if given is None:
        raise InputError("path = None; expected a file or a folder")
    allowed = flag("allow_unstamped", allow_unstamped)
    stamps = {file: read_stamp(file) for file in vector_files(given)}
    if any(stamps.values()):
        check_same({str(file): stamp for file, stamp in stamps.items()}, f"loading {given}")
    elif not allowed:
        raise InputError(
            f"{next(iter(stamps))} has no stamp, so nobody knows what its vectors are (programs that rewrite a file drop it): "
            "embed the texts again, or pass allow_unstamped=True if you know that the vectors are what you need"
        )
    found = _joined([_content(file, stamp) for file, stamp in stamps.items()], given)
    return StampedVectors(found.vectors, next(iter(stamps.values())), found.ids, found.scales, name=str(given))


def save_vectors(path: str | PathLike[str], stamped: StampedVectors) -> None:
    """Save vectors with their stamp: in Parquet with ids and scales, or in npy with a sidecar `FILE.npy.stamp.json`.

    Raises:
        InputError: there is no stamp, or npy cannot hold what there is.
        OutputError: another suffix than `.parquet` and `.npy`, or the file cannot be written.
        MissingExtraError: Parquet, and pyarrow is not installed.
    """
    given = path_of("path", path)
    if not isinstance(stamped, StampedVectors) or stamped.stamp is None:
        raise InputError(
            f"save_vectors takes vectors with a stamp, found {shown(type(stamped).__name__)} without one: "
            "StampedVectors(vectors, stamp_of(model, model.prompt_for('document')))"
        )
    if given is None or given.suffix.lower() not in (".parquet", ".npy"):
        raise OutputError(f"{given}: vectors are saved as .parquet or .npy")
    if given.suffix.lower() == ".parquet":
        write_parquet(given, stamped.vectors, stamped.stamp, stamped.ids, stamped.scales)
        return
    if stamped.ids is not None or stamped.scales is not None:
        raise InputError(f"{given}: npy holds vectors alone, without ids and scales: save them as .parquet")
    with writing(given) as out:
        np.save(out, stamped.vectors, allow_pickle=False)
    write_sidecar(given, stamped.stamp)


def _content(path: Path, stamp: Stamp | None) -> _Content:
    suffix = path.suffix.lower()
    if suffix in TABLES:
        return _Content(*ArrowFile(path).read())
    if suffix == ".npy":
        vectors, beside = _npy(path, mapped=False), path.with_suffix(_IDS)
        rows = [record for _, record in _records(beside)] if beside.is_file() else []
        return _Content(vectors, *_ids_and_scales(rows, path)) if rows else _Content(vectors, None, None)
    if suffix in _LINES:
        return _lines(path, stamp)
    raise InputError(f"{path}: vectors are loaded from files that end with {', '.join(_LOADED)}")


def _joined(parts: list[_Content], path: Path) -> _Content:
    full = [part for part in parts if len(part.vectors)] or parts[:1]
    widths = sorted({part.vectors.shape[1] for part in full})
    if len(widths) > 1:
        raise InputError(f"{path} has vectors of different widths: {', '.join(map(str, widths))}")
    ids, scales = [part.ids for part in full], [part.scales for part in full]
    return _Content(
        np.concatenate([part.vectors for part in full]),
        [one for some in ids for one in some or ()] if None not in ids else None,
        np.concatenate([some for some in scales if some is not None]) if all(s is not None for s in scales) else None,
    )


def _npy(path: Path, *, mapped: bool) -> NDArray[Any]:
    try:
        vectors = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is not an npy file of vectors: {error}") from error
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind not in "iuf":
        raise InputError(f"{path} is not an npy file of vectors: expected an array of numbers of shape [n, width]")
    return vectors


def _lines(path: Path, stamp: Stamp | None) -> _Content:
    rows: list[list[float]] = []
    records = []
    for number, record in _records(path):
        vector = record.pop(VECTOR, None)
        if not isinstance(vector, list) or not all(type(item) in (int, float) for item in vector):
            raise InputError(f"{path}:{number}: expected an object with a list of numbers {VECTOR!r}")
        if rows and len(vector) != len(rows[0]):
            raise InputError(f"{path}:{number}: a vector of {len(vector)} numbers; the first has {len(rows[0])}")
        rows.append(vector)
        records.append(record)
    dtype = np.dtype(np.float32 if stamp is None else DTYPES.get(stamp.precision, stamp.precision))
    try:
        vectors = np.array(rows, dtype).reshape(len(rows), len(rows[0]) if rows else 0)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: the numbers do not fit {dtype}: {error}") from error
    return _Content(vectors, *_ids_and_scales(records, path))


def _ids_and_scales(records: list[dict[str, Any]], path: Path) -> tuple[list[Any], NDArray[np.float32] | None]:
    """Return the ids of records, or their indices, and the scales if all have one."""
    ids = [record.get("id", record.get("index")) for record in records]
    scales = [record.get("scale") for record in records]
    if not records or None in scales:
        return ids, None
    try:
        return ids, np.array(scales, np.float32)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: a scale is not a number: {error}") from error


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_regular(path) as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
            except ValueError as error:
                raise InputError(f"{path}:{number} is not JSON: {error}") from error
            if not isinstance(record, dict):
                raise InputError(f"{path}:{number}: expected an object with a list of numbers {VECTOR!r}")
            yield number, record
