"""The connections of a server: as many as its limit of open files carries, the idle ones closed first."""

import asyncio
import logging
from typing import Any, Protocol

from moembed.errors import InputError
from moembed.server.logs import log
from moembed.server.settings import DEFAULT_CONNECTIONS, SPARE_CONNECTIONS

# Open files beside connections: the model's, the log's, the event loop's, the metrics'.
_OTHER_FILES = 64
# A process that waits with epoll or kqueue has no use for a low limit; a higher one than this serves no purpose here.
_MOST_FILES = 65_536
# Connections that may wait to be accepted, and that are accepted before others are looked at again: where there are no files
# left, asyncio tries and fails so many times in a row.
BACKLOG, ACCEPTED_AT_ONCE = 2048, 16
_CLOSING_SECONDS = 0.1
_LOG_SECONDS = 10.0
_BODY = b'{"error":"too many connections: try again later"}'
_REFUSED = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


class Member(Protocol):
    """A connection of the server."""

    transport: asyncio.Transport

    @property
    def idle_since(self) -> float | None:
        """The loop's time since when it waits for a request, or None if one is being answered."""


class Connections:
    """The open connections of one process.

    Args:
        most: connections at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: set[Member] = set()
        self._watching = False
        self._refused = self._closed = self._failed = 0
        self._next_line = self._next_closing = float("-inf")

    def admit(self, member: Member) -> bool:
        """Count a new connection; at the limit, those that were idle for longest are closed for it.

        Returns:
            False if there were none, and it was refused.
        """
        loop = asyncio.get_running_loop()
        if not self._watching:
            loop.set_exception_handler(self._handle)
            self._watching = True
        if len(self._open) >= self._most:
            self._close_idle(loop)
        if len(self._open) >= self._most:
            member.transport.write(_REFUSED)
            member.transport.close()
            self._refused += 1
            self._tell(loop)
            return False
        self._open.add(member)
        return True

    def forget(self, member: Member) -> None:
        """Called when a connection is over."""
        self._open.discard(member)

    def _close_idle(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close a sixteenth of the connections: to look for them costs time, which is shared by so many newcomers."""
        idle = [(member.idle_since, id(member), member) for member in self._open]
        for _, _, member in sorted(one for one in idle if one[0] is not None)[: max(1, self._most // 16)]:
            self._open.discard(member)
            member.transport.close()
            self._closed += 1
        self._tell(loop)

    def _handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The loop's handler of exceptions: asyncio tries again to accept after a second, and says so each time."""
        if not isinstance(context.get("exception"), OSError) or "accept" not in context.get("message", ""):
            loop.default_exception_handler(context)
            return
        self._failed += 1
        if loop.time() >= self._next_closing:
            self._next_closing = loop.time() + _CLOSING_SECONDS
            self._close_idle(loop)
        self._tell(loop)

    def _tell(self, loop: asyncio.AbstractEventLoop) -> None:
        """Write a line of the log, unless one was written within the interval: then it waits for its end."""
        if not (self._refused or self._closed or self._failed):
            return
        if loop.time() < self._next_line:
            return
        self._next_line = loop.time() + _LOG_SECONDS
        log(
            logging.WARNING,
            event="connections",
            message=f"{len(self._open)} connections of {self._most} are open; idle ones are closed for new ones. More are "
            "possible with a higher --max-connections and limit of open files (ulimit -n)",
            closed=self._closed,
            refused=self._refused,
            not_accepted=self._failed,
        )
        self._refused = self._closed = self._failed = 0
        loop.call_later(_LOG_SECONDS, self._tell, loop)


def open_files() -> int | None:
    """Most files that this process may open, after its soft limit was raised as far as the hard one allows; None for any."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):  # macOS has a lower limit of its own, which it does not tell
            pass
    return None if soft == resource.RLIM_INFINITY else soft


def most_connections(wanted: int | None, files: int | None) -> int:
    """Connections at a time, in each process.

    Args:
        wanted: what was set, None for the default.
        files: most open files, None for any.

    Raises:
        InputError: more were set than files may be open.
    """
    if files is None:
        return wanted or DEFAULT_CONNECTIONS
    possible = files - ACCEPTED_AT_ONCE - _OTHER_FILES
    if possible < 2 * SPARE_CONNECTIONS:
        raise InputError(
            f"the limit of open files is {files}, which leaves {max(possible, 0)} for connections: raise it (ulimit -n) to at "
            "least 128"
        )
    if wanted is not None and wanted > possible:
        raise InputError(
            f"max_connections = {wanted}; the limit of open files is {files}, which leaves {possible} for connections: raise it "
            "(ulimit -n, LimitNOFILE= of a systemd unit), or set less"
        )
    return wanted or min(DEFAULT_CONNECTIONS, possible)
