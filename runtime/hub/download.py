"""Download of one file that goes on at its byte after an interruption, and is hashed while it is read.

Beside the target there is at most one unfinished file, `NAME.part`, and a record of what it is a part of, `NAME.part.json`.
An advisory lock on the unfinished file makes a second process wait. Bytes of two versions are never joined: an unfinished file
is used only if the digest or the ETag is the same, the server confirms the version of each further range, and a digest that
does not fit ends the download without a file.
"""

import errno
import hashlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from moembed.errors import OutputError, SourceError
from moembed.hub.client import Answer, Attempts, Client, refuse_web_page, web_page
from moembed.hub.transport import UnreachableError, header, origin
from moembed.hub.unfinished import (
    PART,
    Unfinished,
    Version,
    open_unfinished,
    read_record,
    remove_record,
    write_record,
)

_CHUNK = 1 << 20
_MAX_RESTARTS = 1
_SLOWEST = 1024  # bytes per second; below it, a transfer counts as stalled
_HTML = (b"<!doctype html", b"<html")

Progress = Callable[[int, int | None], object]


@dataclass(frozen=True)
class Source:
    """File on a hub.

    Attributes:
        address: address on the hub; redirects are followed anew for every attempt.
        file: path in the repository.
        repo: `owner/name`.
        revision: commit, tag or branch.
        size: bytes; None if unknown.
        sha256: expected digest; None if unknown.
        git_sha1: expected digest of git's blob, for a small file; None if unknown.
    """

    address: str
    file: str
    repo: str
    revision: str
    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None

    def __str__(self) -> str:
        return f"{self.file} of {self.repo} at revision {self.revision}"


class _ChangedError(Exception):
    """Response that does not continue the unfinished file."""


def download(client: Client, source: Source, target: Path, *, progress: Progress | None = None) -> str:
    """Download a file to a path where there is none yet; go on with what an earlier call left.

    Args:
        client: the hub.
        source: the file.
        target: path of the finished file; its folder exists.
        progress: called with the bytes that are there and their total (None if unknown), also while it waits. An error that it
            raises ends the download, which can be continued later.

    Returns:
        The sha256 of the file.

    Raises:
        UnreachableError: the host did not answer, or not in time, after several attempts. The unfinished file stays.
        SourceError: the content is not what was expected; the unfinished file is removed.
        OutputError: the file cannot be written, for example because the disk is full.
    """
    report = progress or (lambda _done, _total: None)
    part = target.with_name(target.name + PART)
    try:
        with open_unfinished(part, target, client.log, lambda: report(0, source.size)) as opened:
            if opened is None:
                return _digest_of(target)
            return _Transfer(client, source, opened, part, report).run(target)
    except OSError as error:
        if isinstance(error, SourceError | OutputError):
            raise
        remedy = (
            "free some space, then run it again: it goes on from there"
            if error.errno == errno.ENOSPC
            else "check the folder"
        )
        raise OutputError(f"cannot write {part}: {error.strerror or error}; {remedy}") from error


class _Transfer:
    """Transfer of one file, over as many responses as it takes."""

    def __init__(self, client: Client, source: Source, opened: Unfinished, part: Path, report: Progress) -> None:
        self._client, self._source, self._part, self._report = client, source, part, report
        self._file, self._locked = opened.file, opened.locked
        self._version = Version(source.sha256, source.size)
        self._total = source.size
        self._digest, self._done, self._joined = hashlib.sha256(), 0, False
        self._responses = self._restarts = 0

    def run(self, target: Path) -> str:
        """Transfer, check and rename the file; return its sha256."""
        self._resume()
        source, started = self._source, time.monotonic()
        attempts = Attempts(self._client.patience, self._client.log, self._tick)
        while True:
            before = self._done
            try:
                self._transfer()
                self._check()
                break
            except UnreachableError as error:
                if self._done - before >= self._client.patience.enough:
                    attempts.succeeded()
                # A host that has answered is reachable: what broke may work again.
                error.transient = error.transient or self._responses > 0
                try:
                    attempts.after(error)
                except UnreachableError as last:
                    total = f" of {self._total:,}" if self._total is not None else ""
                    raise UnreachableError(
                        f"{source} could not be downloaded: {last}. {self._done:,}{total} bytes are here "
                        f"after {time.monotonic() - started:.0f} seconds; run it again to go on from there"
                    ) from last
            except _ChangedError as change:
                if self._restarts == _MAX_RESTARTS:
                    self._remove()
                    raise SourceError(f"{source} could not be downloaded: {change}") from None
                self._client.log(f"{change}: starting {source.file} anew")
                self._restarts += 1
                self._empty()
        if sys.platform == "win32":
            self._file.close()  # an open file cannot be renamed there
        self._part.replace(target)
        remove_record(self._part)
        return self._digest.hexdigest()

    def _tick(self) -> None:
        self._report(self._done, self._total)

    def _resume(self) -> None:
        """Hash what is there already, if it is a part of this version."""
        version = read_record(self._part)
        size = os.fstat(self._file.fileno()).st_size
        fits = self._total is None or size <= self._total
        if (
            not size
            or version is None
            or not version.continues(Version(self._source.sha256, self._source.size))
            or not fits
        ):
            self._empty()
            return
        self._version, self._total = version, self._total if self._total is not None else version.size
        while piece := self._file.read(_CHUNK):
            self._digest.update(piece)
            self._done += len(piece)
        self._joined = True
        self._tick()

    def _empty(self) -> None:
        """Start anew: forget all bytes."""
        self._file.seek(0)
        self._file.truncate()
        self._digest, self._done, self._joined = hashlib.sha256(), 0, False
        self._version, self._total = Version(self._source.sha256, self._source.size), self._source.size
        remove_record(self._part)

    def _remove(self) -> None:
        self._empty()
        self._file.close()
        self._part.unlink(missing_ok=True)

    def _transfer(self) -> None:
        """Read one response to its end."""
        if self._joined and self._done == self._total:
            return
        headers = {"Range": f"bytes={self._done}-"} if self._done else {}
        if self._done and self._version.etag:
            headers["If-Range"] = self._version.etag
        answer = self._client.open("GET", self._source.address, headers)
        with answer.response as response:
            self._accept(answer)
            self._responses += 1
            self._read(response, answer.host)
        if self._total is not None and self._done < self._total:
            raise UnreachableError(f"{answer.host} ended the connection", transient=True)

    def _accept(self, answer: Answer) -> None:
        """Make sure that a response starts this file, or continues it at the right byte; note its version."""
        response, host = answer.response, answer.host
        if response.status == 416 and self._done:
            raise _ChangedError(f"{host} has no byte {self._done:,} of it (status 416)")
        if response.status not in (200, 206):
            if origin(answer.address) != origin(self._source.address):
                # An address that expires; the hub gives a new one.
                raise UnreachableError(f"{host} answered with status {response.status}", transient=True)
            raise self._client.refusal(answer, self._source.file, self._source.repo, self._source.revision)
        refuse_web_page(answer, self._source.file, self._source.repo)
        if (coding := header(response.headers, "Content-Encoding")) not in (None, "identity"):
            raise SourceError(
                f"{host} sent {self._source.file} as {coding}, which was not asked for: check the proxy or the mirror"
            )
        etag = _strong(header(response.headers, "ETag"))
        if response.status == 206:
            self._accept_range(response, etag, host)
            return
        if self._done:  # the whole file in place of a range
            self._empty()
        length = _number(header(response.headers, "Content-Length"))
        if None not in (length, self._total) and length != self._total:
            raise _ChangedError(f"{host} sends {length:,} bytes in place of {self._total:,}")
        self._total = length if self._total is None else self._total
        self._version = replace(self._version, size=self._total, etag=etag)
        write_record(self._part, self._version)

    def _accept_range(self, response: HTTPResponse, etag: str | None, host: str) -> None:
        unit, _, rest = (header(response.headers, "Content-Range") or "").partition(" ")
        span, _, size = rest.partition("/")
        total = _number(size)
        if unit != "bytes" or _number(span.partition("-")[0]) != self._done or not self._done:
            raise _ChangedError(f"{host} sent another range than bytes {self._done:,} on")
        if None not in (total, self._total) and total != self._total:
            raise _ChangedError(f"{host} has another version of it, of {total:,} bytes in place of {self._total:,}")
        if self._version.etag and etag and etag != self._version.etag:
            raise _ChangedError(
                f"{host} has another version of it, with the ETag {etag} in place of {self._version.etag}"
            )
        if self._source.sha256 is None and not (self._version.etag and etag):
            raise _ChangedError(f"{host} does not say which version it continues")
        self._joined = True

    def _read(self, response: HTTPResponse, host: str) -> None:
        timeout = self._client.patience.timeout
        since, received = time.monotonic(), 0
        while True:
            try:
                piece = response.read1(_CHUNK)
            except TimeoutError as error:
                raise UnreachableError(f"{host} sent nothing for {timeout:g} seconds", transient=True) from error
            except (OSError, HTTPException) as error:
                raise UnreachableError(f"the connection to {host} broke ({error})", transient=True) from error
            if not piece:
                return
            if not self._done and piece.lstrip()[:15].lower().startswith(_HTML):
                self._remove()
                raise web_page(host, self._source.file, self._source.repo)
            self._write(piece)
            if self._total is not None and self._done > self._total:
                raise _ChangedError(f"{host} sent more than {self._total:,} bytes")
            received += len(piece)
            now = time.monotonic()
            if now - since >= timeout:
                if received < _SLOWEST * timeout:
                    raise UnreachableError(
                        f"{host} sent {received:,} bytes in {now - since:.0f} seconds", transient=True
                    )
                since, received = now, 0

    def _write(self, piece: bytes) -> None:
        view = memoryview(piece)
        while view:
            view = view[self._file.write(view) :]
        self._digest.update(piece)
        self._done += len(piece)
        self._tick()

    def _check(self) -> None:
        """Compare the digest; a file of one response that is complete and wrong is not asked for again."""
        expected, found = self._source.sha256, self._digest.hexdigest()
        if not self._locked and _digest_of(self._part) != found:
            raise _ChangedError(f"another process wrote to {self._part}")
        if expected is None and self._source.git_sha1 is not None and self._done < _CHUNK * 64:
            expected, found = self._source.git_sha1, self._git_sha1()
        if expected in (None, found):
            return
        kind = "sha256" if expected == self._source.sha256 else "git digest"
        message = f"{self._source} has {kind} {found}, expected {expected}"
        if self._joined or self._source.size is None:
            raise _ChangedError(message)
        self._remove()
        raise SourceError(
            f"{message}: it was altered on its way or on the hub, and is not kept; try again, from another network or mirror "
            "if it happens again"
        )

    def _git_sha1(self) -> str:
        digest = hashlib.sha1(b"blob %d\0" % self._done, usedforsecurity=False)
        self._file.seek(0)
        while piece := self._file.read(_CHUNK):
            digest.update(piece)
        return digest.hexdigest()


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _strong(etag: str | None) -> str | None:
    """Return an ETag that identifies bytes; None for a weak one."""
    return etag if etag and etag.startswith('"') and etag.endswith('"') and len(etag) > 2 else None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None
