"""Sidecars: stamps of files whose format has no room for metadata. The sidecar of `x.npy` is `x.npy.stamp.json`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from moembed.bundle.bundle import sha256_of
from moembed.errors import InputError
from moembed.files.destination import writing
from moembed.files.records import Sha256, read_record
from moembed.files.untrusted import parse_object, read_bounded
from moembed.stamps.stamp import Stamp

SUFFIX = ".stamp.json"
_MAX_SIZE = 1 << 20  # bytes
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
    with writing(sidecar_path(path)) as out:
        out.write(sidecar_bytes(stamp, sha256_of(path)))


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
    try:
        raw = parse_object(read_bounded(beside, _MAX_SIZE))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{beside} is not a stamp: {error}; {_REMEDY}") from error
    sidecar = read_record(Sidecar, raw, str(beside), error=InputError, remedy=_REMEDY)
    if sidecar.sha256 != sha256_of(path):
        raise InputError(
            f"{path} has changed since {beside.name} was written, so nobody knows what its vectors are: remove the stamp, or "
            "embed the texts again"
        )
    return sidecar.stamp
