"""Fetching of files of a hub repository, all of one commit: from this machine if they are here, else by download."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from moembed.errors import CheckpointError, SourceError
from moembed.hub.access import endpoint, offline, timeout, token
from moembed.hub.cache import cached, commit_of, find_by_digest, is_intact, is_known_absent
from moembed.hub.client import AbsentError, Client, Patience
from moembed.hub.metadata import Metadata, list_files, look_up
from moembed.hub.names import check_file_name, is_commit
from moembed.hub.places import CachePlace, FolderPlace, Place
from moembed.hub.transport import UnreachableError


@dataclass(frozen=True)
class Fetched:
    """Files of one commit.

    Attributes:
        folder: folder of the files.
        commit: their commit.
    """

    folder: Path
    commit: str


@dataclass(frozen=True)
class Reporter:
    """Functions that hear of a download.

    Attributes:
        progress: takes the name of a file, the bytes of it that are here, and their total (None if unknown); called also while
            the download waits. An error that it raises ends the download, which can be continued later.
        log: takes a line about waiting, starting anew, or where a file was found.
        before: takes the name and the size in bytes of a file (None if unknown) before it is downloaded; an error that it raises
            prevents that.
    """

    progress: Callable[[str, int, int | None], object] = lambda _name, _done, _total: None
    log: Callable[[str], object] = lambda line: logging.getLogger("moembed").warning("moembed: %s", line)
    before: Callable[[str, int | None], object] = lambda _name, _size: None


def fetch(
    repo: str,
    filenames: Iterable[str],
    *,
    optional: Iterable[str] = (),
    revision: str | None,
    cache_dir: Path | None = None,
    local_files_only: bool = False,
    into: Path | None = None,
    sha256: Mapping[str, str] | None = None,
    patience: Patience | None = None,
    reporter: Reporter | None = None,
) -> Fetched:
    """Fetch files of a hub repository, all of one commit.

    Files that are in a cache on this machine are used from there. A file with a pinned digest is recognized by it, in any
    snapshot of the repository.

    Args:
        repo: `owner/name`, as `moembed.hub.names.parse` returns it.
        filenames: paths in the repository.
        optional: further paths, which the repository may lack.
        revision: commit, tag or branch; None for the default branch.
        cache_dir: cache folder; None for huggingface_hub's default.
        local_files_only: do not use the network.
        into: folder to fetch into; files of a cache are linked there. None to fetch into the cache.
        sha256: path -> pinned digest, hexadecimal.
        patience: limits of waiting.
        reporter: functions that hear of downloads.

    Returns:
        The folder and the commit.

    Raises:
        AbsentError: the repository, or without the network the cache, does not hold a file.
        SourceError: a file, the revision or the repository cannot be fetched.
        CheckpointError: the hub serves a file with another digest than the pinned one; nothing of it is downloaded.
        OutputError: the cache or the folder cannot be written.
        MissingExtraError: huggingface_hub is not installed.
    """
    may_lack = tuple(optional)
    # Optional files first, since they are small: an interrupted download should lack the weights, not them.
    names = (*may_lack, *filenames)
    if not names:
        raise SourceError(f"no file was requested from {repo}")
    for name in names:
        check_file_name(repo, name)
    reporter = reporter or Reporter()
    place = FolderPlace(repo, into, cache_dir) if into else CachePlace(repo, cache_dir)
    job = _Job(repo, revision, place, sha256 or {}, reporter, patience, local_files_only or offline() is not None)
    for name in names:
        try:
            job.fetch(name)
        except AbsentError:
            if name not in may_lack:
                raise
    return job.finish()


def file_names(repo: str, revision: str | None) -> list[str]:
    """List the files of a hub repository, to explain an error; empty if the hub does not answer."""
    try:
        return [] if offline() else list_files(_client(Patience(timeout=10.0), Reporter()), repo, revision)
    except SourceError:
        return []


def _client(patience: Patience | None, reporter: Reporter) -> Client:
    if patience is None:
        patience = Patience()
        patience = replace(patience, timeout=timeout() or patience.timeout)
    return Client(endpoint(), token(), patience, reporter.log)


@dataclass
class _Job:
    """Files of one commit on their way to one place."""

    repo: str
    revision: str | None
    place: Place
    sha256: Mapping[str, str]
    reporter: Reporter
    patience: Patience | None
    offline: bool
    commit: str | None = None
    client: Client | None = None

    def __post_init__(self) -> None:
        if is_commit(self.revision):
            self.commit = self.revision
        elif self.offline:
            commits = (commit_of(folder, self.repo, self.revision) for folder in self.place.folders)
            self.commit = next(filter(None, commits), None)

    def fetch(self, name: str) -> None:
        """Fetch one file.

        Raises:
            AbsentError: the repository, or without the network the cache, does not hold it.
        """
        if self.commit and self._take(name, self.commit, self.sha256.get(name)):
            return
        if self.offline:
            raise AbsentError(
                f"{name} of {self._at} is not in the cache and the network was not allowed or not reachable: download it "
                f"once while online, or pass a local folder (there is no folder {self.repo} here)"
            )
        self._request(name)

    def finish(self) -> Fetched:
        """Return the folder and the commit."""
        if self.commit is None:
            raise AbsentError(f"{self._at} holds none of the files")
        if self.client is not None:  # otherwise, a cache that may be read-only says so already
            self.place.finish(self.revision, self.commit)
        return Fetched(self.place.folder(self.commit), self.commit)

    @property
    def _at(self) -> str:
        return f"{self.repo} at revision {self.revision or 'main'}"

    def _take(self, name: str, commit: str, digest: str | None) -> bool:
        """Use a file that is on this machine: one with the digest, or without one, that of the commit."""
        if digest:
            own = self.place.folder(commit) / name
            found = find_by_digest(self.repo, name, digest, self.place.folders, first=own)
            if found not in (None, own):
                self.reporter.log(f"{name} of {self.repo} is on this machine already: {found}")
        else:
            paths = (cached(folder, self.repo, commit, name) for folder in self.place.folders)
            # A bundle in the cache is not hashed here at every start: opening it compares with its manifest.
            found = next(
                (path for path in paths if path and (isinstance(self.place, CachePlace) or is_intact(path))), None
            )
        if found is not None:
            self.place.take(found, commit, name)
        elif any(is_known_absent(folder, self.repo, commit, name) for folder in self.place.folders):
            raise AbsentError(f"{self.repo} at revision {commit} holds no {name}")
        return found is not None

    def _request(self, name: str) -> None:
        """Ask the hub for a file, and download it unless it is here."""
        if self.client is None:
            self.client = self._connect()
        try:
            found = look_up(self.client, self.repo, name, self.commit or self.revision)
        except UnreachableError as error:
            if self._take_as_cached(name):
                return
            raise self._unreachable(name, error) from error
        except AbsentError as error:
            if self.commit and error.stated:
                self.place.note_absent(self.commit, name)
            raise
        self.commit = found.commit
        pinned = self.sha256.get(name)
        self._check_pin(found, pinned)
        digest = found.source.sha256 if isinstance(self.place, FolderPlace) else None
        if pinned is None and self._take(name, found.commit, digest):
            return
        self.reporter.before(name, found.source.size)
        found = replace(found, source=replace(found.source, sha256=pinned or found.source.sha256))
        self.place.download(self.client, found, partial(self.reporter.progress, name))

    def _connect(self) -> Client:
        # A name such as `models/x` may be meant as a folder.
        if not is_commit(self.revision):
            self.reporter.log(f"no folder {self.repo} here: asking the hub for it")
        return _client(self.patience, self.reporter)

    def _take_as_cached(self, name: str) -> bool:
        """Use the commit that a branch had when it was cached, because the hub does not answer."""
        commits = (self.commit or commit_of(folder, self.repo, self.revision) for folder in self.place.folders)
        commit = next(filter(None, commits), None)
        if commit is None or name in self.sha256 or not self._take(name, commit, None):
            return False
        self.commit = commit
        return True

    def _check_pin(self, found: Metadata, pinned: str | None) -> None:
        served = found.source.sha256
        if pinned and served and served != pinned:
            raise CheckpointError(
                f"{found.source.file} of {self.repo} has sha256 {served}, expected {pinned}: the repository was altered, and "
                "nothing of it was downloaded. To use it as it is now, unpinned, pass a revision such as main"
            )

    def _unreachable(self, name: str, error: UnreachableError) -> SourceError:
        if error.transient:
            return SourceError(f"{name} of {self._at} could not be downloaded: {error}")
        return SourceError(
            f"{name} of {self._at} is not in the cache and the network was not reachable ({error}); no folder {self.repo} is "
            "here either: check the name, or download it once while online"
        )
