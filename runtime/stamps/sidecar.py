"""Stamps of files whose format has no room for metadata.

The sidecar of `x.npy` is `x.npy.stamp.json`. Shards of a run have none: the record of the run holds their stamp, and that of each
finished shard its digest.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from moembed.bundle.bundle import sha256_of
from moembed.errors import InputError
from moembed.files.destination import writing
from moembed.files.records import Sha256, read_record
from moembed.files.untrusted import parse_object, read_bounded
from moembed.stamps.stamp import Stamp

SUFFIX = ".stamp.json"
_MAX_SIZE = 1 << 20  # bytes
_MAX_RECORD_SIZE = 1 << 28  # bytes; it lists the input files
_RUN = "_moembed"  # folder of `moembed.corpus.target` in the output of a run
_REMEDY = "remove it, or embed the texts again"


@dataclass(frozen=True)
class Sidecar:
    """Content of a sidecar.

    Attributes:
        sha256: digest of the file beside it, so that a file which something else has written since has no stamp.
        stamp: stamp of the file's vectors.
    """

    sha256: Sha256
    stamp: Stamp


def sidecar_path(path: Path) -> Path:
    """Return the path of the sidecar of a file."""
    return path.with_name(path.name + SUFFIX)


def write_sidecar(path: Path, stamp: Stamp) -> None:
    """Write the stamp of a file that is complete. The sidecar appears whole or not at all.

    Raises:
        OutputError: the sidecar cannot be written.
        OSError: the file cannot be read.
    """
    content = sidecar_bytes(stamp, sha256_of(path))
    with writing(sidecar_path(path)) as out:
        out.write(content)


def sidecar_bytes(stamp: Stamp, sha256: str) -> bytes:
    """Return the content of a sidecar.

    Args:
        stamp: stamp of the vectors.
        sha256: digest of the file with the vectors, in hex.
    """
    content = json.dumps(asdict(Sidecar(sha256, stamp)), indent=1, sort_keys=True, ensure_ascii=False)
    return content.encode() + b"\n"


def read_sidecar(path: Path) -> Stamp | None:
    """Return the stamp of a file from its sidecar; None if it has no sidecar.

    Raises:
        InputError: the sidecar is damaged, or the file has changed since it was written.
    """
    beside = sidecar_path(path)
    raw = _object(beside, _MAX_SIZE)
    if raw is None:
        return None
    sidecar = read_record(Sidecar, raw, str(beside), error=InputError, remedy=_REMEDY)
    _check_digest(path, sidecar.sha256, beside, f"remove {beside.name}, or embed the texts again")
    return sidecar.stamp


def read_run_stamp(path: Path) -> Stamp | None:
    """Return the stamp of a finished shard from the record of its run; None if it is no such shard.

    Raises:
        InputError: a record is damaged, or the shard has changed since it was finished.
    """
    own = path.parent / _RUN
    record = own / "run.json"
    finished = own / "done" / f"{path.name.partition('.')[0]}.json"
    run, shard = _object(record, _MAX_RECORD_SIZE), _object(finished, _MAX_SIZE)
    if run is None or shard is None:
        return None
    stamp = read_record(Stamp, run.get("stamp"), f"the stamp of {record}", error=InputError, remedy=_REMEDY)
    try:
        expected = shard["files"][path.name]["sha256"]
    except (KeyError, TypeError):
        return None
    _check_digest(path, expected, finished, "give the same moembed embed command again, which makes the shard anew")
    return stamp


def _object(path: Path, limit: int) -> dict[str, Any] | None:
    try:
        return parse_object(read_bounded(path, limit))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a stamp: {error}; {_REMEDY}") from error


def _check_digest(path: Path, expected: object, beside: Path, remedy: str) -> None:
    if expected != sha256_of(path):
        raise InputError(
            f"{path} has changed since {beside.name} was written, so nobody knows what its vectors are: {remedy}"
        )
