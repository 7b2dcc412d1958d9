"""Folder of the output, local or in S3. A file appears in it complete or not at all.

Locally it is written to `_moembed/partial/` and renamed. Where nothing can be renamed, and in S3, it is made in memory and
written in one go: an object appears when it is closed. Readers skip names that start with `_`.
"""

import errno
import hashlib
import io
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from moembed.corpus.storage import is_remote, remote
from moembed.errors import MoembedError, OutputError
from moembed.files.addresses import scheme_of

OWN = "_moembed"
_PARTIAL = f"{OWN}/partial"
_PIECE = 1 << 20
_NO_SYNC = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})  # of file systems that lack it


class Entry:
    """Size in bytes and sha256 of a file."""

    def __init__(self, size: int, sha256: str) -> None:
        self.size, self.sha256 = size, sha256

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"size": self.size, "sha256": self.sha256}


class Target(Protocol):
    """Folder of the output."""

    path: str

    def put(self, name: str, produce: Callable[[BinaryIO], object]) -> Entry:
        """Put a file in place, complete or not at all.

        Args:
            name: path in the folder.
            produce: writes the content, in sequence.

        Raises:
            OutputError: it cannot be written.
        """

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if there is none."""

    def entry(self, name: str) -> Entry | None:
        """Hash a file; None if there is none."""

    def names(self, folder: str = "") -> list[str]:
        """Return the names of the files in a folder, sorted."""

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""


class Sink(io.RawIOBase):
    """File that is written in sequence, hashed. Used as a context manager, it ignores what is written after an error.

    Writers of Parquet write their footer when they are deleted, also after an error.
    """

    def __init__(self, out: BinaryIO) -> None:
        self._out, self._digest, self._size, self._is_lost = out, hashlib.sha256(), 0, False

    def __exit__(self, kind: object, *_error: object) -> None:
        self._is_lost = kind is not None

    def writable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the number of bytes so far."""
        return self._size

    def write(self, data: Any) -> int:
        """Write bytes."""
        view = memoryview(data).cast("B")
        if self._is_lost:
            return len(view)
        self._out.write(view)
        self._digest.update(view)
        self._size += len(view)
        return len(view)

    @property
    def entry(self) -> Entry:
        """Size and digest of what was written."""
        return Entry(self._size, self._digest.hexdigest())


class LocalTarget:
    """Local folder, which is created.

    Attributes:
        path: its path.
        renames: False if its file system has no renames.
    """

    def __init__(self, path: str, token: str, *, renames: bool | None = None) -> None:
        self.path, self._folder, self._token = path, Path(path), token
        try:
            (self._folder / _PARTIAL).mkdir(parents=True, exist_ok=True)
            self.renames = self._can_rename() if renames is None else renames
        except OSError as error:
            raise self._error("", error) from error

    def put(self, name: str, produce: Callable[[BinaryIO], object]) -> Entry:
        """Put a file in place; see `Target`."""
        path = self._folder / name
        partial = self.spool(f"{path.name}.partial")  # not found by a pattern such as **/*.parquet
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not self.renames:
                entry, content = _in_memory(produce)
                try:
                    with path.open("wb") as file:
                        file.write(content)
                        _sync(file)
                except BaseException:
                    path.unlink(missing_ok=True)
                    raise
                return entry
            try:
                partial.parent.mkdir(exist_ok=True)
                with partial.open("wb") as file, Sink(file) as sink:
                    produce(sink)  # type: ignore[arg-type]
                    file.flush()
                    _sync(file)
                partial.replace(path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
            return sink.entry
        except MoembedError:  # of `produce`
            raise
        except OSError as error:
            raise self._error(name, error) from error

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; see `Target`."""
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._error(name, error, "read") from error

    def entry(self, name: str) -> Entry | None:
        """Hash a file; see `Target`."""
        try:
            with (self._folder / name).open("rb") as file:
                return _hashed(file)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._error(name, error, "read") from error

    def names(self, folder: str = "") -> list[str]:
        """Return the names of files; see `Target`."""
        try:
            return sorted(entry.name for entry in (self._folder / folder).iterdir() if entry.is_file())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._error(folder, error, "read") from error

    def remove(self, name: str) -> None:
        """Remove a file; see `Target`."""
        try:
            (self._folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise self._error(name, error, "remove") from error

    def sweep(self, slice_name: str) -> None:
        """Remove the unfinished files of owners of a slice; the caller owns it, so that they are dead."""
        for name in self.names(_PARTIAL):
            if name.startswith(f"{slice_name}-"):
                with suppress(OSError):
                    (self._folder / _PARTIAL / name).unlink()

    def spool(self, name: str) -> Path:
        """Return a path for a temporary file of this run."""
        return self._folder / _PARTIAL / f"{self._token}-{name}"

    def discard_if_empty(self) -> None:
        """Remove the folder if nothing was written to it."""
        own = self._folder / OWN
        for folder in (*(own / "owners").glob("*"), own / "owners", own / "partial", own, self._folder):
            with suppress(OSError):
                folder.rmdir()

    def _can_rename(self) -> bool:
        probe = self._folder / _PARTIAL / f"{self._token}-probe"
        moved = probe.with_name(f"{self._token}-probed")
        probe.write_bytes(b"")
        try:
            probe.replace(moved)
        except OSError:
            probe.unlink(missing_ok=True)
            return False
        moved.unlink(missing_ok=True)
        return True

    def _error(self, name: str, error: OSError, verb: str = "write") -> OutputError:
        path = self._folder / name if name else self._folder
        return OutputError(f"cannot {verb} {path}: {error.strerror or error}")


class RemoteTarget:
    """Folder in S3.

    Attributes:
        path: its address.
        renames: False.
    """

    renames = False

    def __init__(self, path: str) -> None:
        self.path = path
        self._system, self._base = remote(path)

    def put(self, name: str, produce: Callable[[BinaryIO], object]) -> Entry:
        """Put a file in place; see `Target`."""
        entry, content = _in_memory(produce)
        try:
            with self._system.open_output_stream(f"{self._base}/{name}") as out:
                out.write(content)
        except OSError as error:
            raise OutputError(f"cannot write {self.path}/{name}: {_first_line(error)}") from error
        return entry

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; see `Target`."""
        try:
            with self._system.open_input_stream(f"{self._base}/{name}") as file:
                return bytes(file.read())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OutputError(f"cannot read {self.path}/{name}: {_first_line(error)}") from error

    def entry(self, name: str) -> Entry | None:
        """Hash a file; see `Target`."""
        try:
            with self._system.open_input_stream(f"{self._base}/{name}") as file:
                return _hashed(file)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OutputError(f"cannot read {self.path}/{name}: {_first_line(error)}") from error

    def names(self, folder: str = "") -> list[str]:
        """Return the names of files; see `Target`."""
        from pyarrow.fs import FileSelector, FileType

        inner = f"{self._base}/{folder}".rstrip("/")
        try:
            infos = self._system.get_file_info(FileSelector(inner, allow_not_found=True))
        except OSError as error:
            raise OutputError(f"cannot read {self.path}/{folder}: {_first_line(error)}") from error
        return sorted(info.base_name for info in infos if info.type == FileType.File)

    def remove(self, name: str) -> None:
        """Remove a file; see `Target`."""
        try:
            self._system.delete_file(f"{self._base}/{name}")
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputError(f"cannot remove {self.path}/{name}: {_first_line(error)}") from error


def open_target(path: str, token: str, *, renames: bool | None = None) -> LocalTarget | RemoteTarget:
    """Open the folder of the output, and create a local one.

    Args:
        path: path, or `s3://` address.
        token: in front of the names of unfinished files.
        renames: True or False if the caller knows; None to try.

    Raises:
        OutputError: it cannot be created or written, or is an address of another store.
    """
    if not is_remote(path) and (scheme := scheme_of(path)):
        raise OutputError(
            f"{path}: {scheme}:// is not written, only local folders and s3://: write to one of them, and copy the files"
        )
    return RemoteTarget(path.rstrip("/")) if is_remote(path) else LocalTarget(path, token, renames=renames)


def existing_target(path: str) -> LocalTarget | RemoteTarget | None:
    """Open an output folder for reading; None if there is no such local folder."""
    if is_remote(path):
        return RemoteTarget(path.rstrip("/"))
    return LocalTarget(path, "", renames=True) if (Path(path) / OWN).is_dir() else None


def _in_memory(produce: Callable[[BinaryIO], object]) -> tuple[Entry, bytes]:
    content = io.BytesIO()
    with Sink(content) as sink:
        produce(sink)  # type: ignore[arg-type]
    return sink.entry, content.getvalue()


def _hashed(file: Any) -> Entry:
    digest, size = hashlib.sha256(), 0
    while piece := file.read(_PIECE):
        digest.update(piece)
        size += len(piece)
    return Entry(size, digest.hexdigest())


def _sync(file: BinaryIO) -> None:
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:  # a full disk or a broken one may be told here first
        if error.errno not in _NO_SYNC:
            raise


def _first_line(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
