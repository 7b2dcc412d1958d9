"""Places that files of a repository are fetched into: a snapshot in huggingface_hub's cache, or a folder of the caller's.

The layout of the cache is the documented one: a blob is named by its ETag, a snapshot holds links to blobs, `refs` has the commit
of each branch, and `.no_exist` remembers files that a commit does not hold.
"""

import hashlib
import os
import secrets
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from moembed.errors import OutputError
from moembed.hub.access import cache_folders, hub_cache
from moembed.hub.cache import commit_of
from moembed.hub.client import Client
from moembed.hub.download import Progress, download
from moembed.hub.layout import repository, snapshot
from moembed.hub.metadata import Metadata
from moembed.hub.names import is_commit
from moembed.hub.unfinished import PART, sweep


class Place(ABC):
    """Place of the files of one commit.

    Attributes:
        folders: caches to look for the files in.
    """

    folders: list[Path]

    @abstractmethod
    def folder(self, commit: str) -> Path:
        """Return the folder of the files."""

    @abstractmethod
    def take(self, found: Path, commit: str, name: str) -> None:
        """Make a file that is on this machine one of the files.

        Raises:
            OutputError: the place cannot be written.
        """

    @abstractmethod
    def download(self, client: Client, found: Metadata, progress: Progress) -> None:
        """Download a file; see `moembed.hub.download.download` for the errors."""

    @abstractmethod
    def note_absent(self, commit: str, name: str) -> None:
        """Remember that the commit does not hold a file, if the place can."""

    @abstractmethod
    def finish(self, revision: str | None, commit: str) -> None:
        """Remember the commit of a branch whose files are here, if the place can."""


class FolderPlace(Place):
    """Folder of the caller's. Files of a cache are linked there.

    Args:
        repo: `owner/name`.
        into: the folder; it is created.
        cache_dir: the hub's cache, or None for huggingface_hub's default.
    """

    def __init__(self, repo: str, into: Path, cache_dir: Path | None) -> None:
        self.folders, self._into, self._repo = cache_folders(cache_dir), into, repo

    def folder(self, commit: str) -> Path:  # noqa: ARG002  (all commits have the one folder)
        """Return the caller's folder."""
        return self._into

    def take(self, found: Path, commit: str, name: str) -> None:
        """Link a file of a cache."""
        target = self.folder(commit) / name
        if found != target:
            with _writing(self._into):
                _make_way(target)
                _link(found.resolve(), target)

    def download(self, client: Client, found: Metadata, progress: Progress) -> None:
        """Download a file into the folder."""
        target = self._into / found.source.file
        with _writing(self._into):
            _make_way(target)
        if target.suffix == ".safetensors":
            # Not for a small file: those are fetched before unfinished weights are continued.
            sweep(target)
        download(client, found.source, target, progress=progress)

    def note_absent(self, commit: str, name: str) -> None:
        """Do nothing."""

    def finish(self, revision: str | None, commit: str) -> None:
        """Do nothing."""


class CachePlace(Place):
    """Snapshot in huggingface_hub's cache.

    Args:
        repo: `owner/name`.
        cache_dir: the cache, or None for huggingface_hub's default.
    """

    def __init__(self, repo: str, cache_dir: Path | None) -> None:
        self._cache, self._repo = hub_cache(repo, cache_dir), repo
        self._base = repository(self._cache, repo)
        self.folders = [self._cache]

    def folder(self, commit: str) -> Path:
        """Return the folder of the snapshot."""
        return snapshot(self._cache, self._repo, commit)

    def take(self, found: Path, commit: str, name: str) -> None:
        """Make a blob of the cache a file of the snapshot."""
        if found != self.folder(commit) / name:
            self._point(commit, name, found.resolve())

    def download(self, client: Client, found: Metadata, progress: Progress) -> None:
        """Download a blob, and make it a file of the snapshot."""
        source = found.source
        unnamed = hashlib.sha256(source.address.encode()).hexdigest()[:16]
        blob = self._base / "blobs" / (found.blob or unnamed)
        with _writing(self._cache):
            blob.parent.mkdir(parents=True, exist_ok=True)
            if blob.is_file() and blob.stat().st_size != source.size:
                blob.unlink()  # cut off when the cache was copied
        sweep(blob)
        digest = download(client, source, blob, progress=progress)
        if found.blob is None:
            named = blob.with_name(digest)
            with suppress(FileNotFoundError):  # another process has renamed it
                blob.replace(named)
            blob = named
        self._point(found.commit, source.file, blob)

    def note_absent(self, commit: str, name: str) -> None:
        """Remember that the commit does not hold a file, if the cache can be written."""
        path = self._base / ".no_exist" / commit / name
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    def finish(self, revision: str | None, commit: str) -> None:
        """Remember the commit of a branch, if the cache can be written."""
        ref = self._base / "refs" / (revision or "main")
        if not is_commit(revision) and commit_of(self._cache, self._repo, revision or "main") != commit:
            with suppress(OSError):
                ref.parent.mkdir(parents=True, exist_ok=True)
                partial = _beside(ref)
                partial.write_text(commit, "utf-8")
                partial.replace(ref)

    def _point(self, commit: str, name: str, blob: Path) -> None:
        """Make a blob a file of a snapshot. Without symbolic links, the blob is moved there.

        Other processes may read the snapshot: a file that is there is never absent for a moment.
        """
        pointer = self.folder(commit) / name
        with _writing(self._cache):
            if _is_same(pointer, blob):
                return
            pointer.parent.mkdir(parents=True, exist_ok=True)
            link = _beside(pointer)
            try:
                link.symlink_to(os.path.relpath(blob, pointer.parent))
            except OSError:
                blob.replace(pointer)
            else:
                try:
                    link.replace(pointer)
                except OSError:
                    link.unlink(missing_ok=True)
                    raise


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False  # one of them is not there


def _beside(path: Path) -> Path:
    """Return a new name beside a path, for what is renamed to it."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def _make_way(target: Path) -> None:
    """Make the folder of a file, and remove what is at its path: a link that leads nowhere, or a damaged file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)


def _link(real: Path, target: Path) -> None:
    """Make a file available at another path: by a symbolic link, else by a hard link, else by a copy."""
    if sys.platform != "win32":  # there, most users may not create symbolic links
        with suppress(OSError):
            target.symlink_to(real)
            return
    with suppress(OSError):
        target.hardlink_to(real)
        return
    partial = target.with_name(target.name + PART)
    shutil.copyfile(real, partial)
    partial.replace(target)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write {error.filename or folder}: {error.strerror or error}; choose another folder for downloads "
            "(HF_HUB_CACHE, or a cache folder as argument)"
        ) from error
