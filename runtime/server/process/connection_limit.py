"""Limit of open connections, derived from the limit of open files. Idle connections are closed first."""

import asyncio
import logging
from typing import Any, Protocol

from moembed.errors import InputError
from moembed.server.logs import log
from moembed.server.settings import DEFAULT_CONNECTIONS, SPARE_CONNECTIONS

# Open files other than connections: of the model, the log, the event loop and the metrics.
_OTHER_FILES = 64
# The soft limit exists for programs that use select(); epoll and kqueue do not need it. More than this is of no use here.
_MAX_FILES = 65_536
# Connections waiting in the listen queue; and connections that asyncio accepts per event, which is also how often it tries
# and fails in a row when no file is left.
BACKLOG, ACCEPTED_AT_ONCE = 2048, 16
_CLOSING_SECONDS = 0.1
_LOG_SECONDS = 10.0
_BODY = b'{"error":"too many connections: try again later"}'
_RESPONSE = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


class LimitedConnection(Protocol):
    """Connection as the limit sees it."""

    transport: asyncio.Transport

    @property
    def idle_since(self) -> float | None:
        """Loop time since which the connection waits for a request; None while a request is in progress."""


class ConnectionLimit:
    """Open connections of one process, limited in number.

    Args:
        max_connections: open connections, at most.
    """

    def __init__(self, max_connections: int) -> None:
        self._max_connections = max_connections
        self._open: set[LimitedConnection] = set()
        self._handles_exceptions = False
        self._refused = self._closed = self._failed = 0
        self._next_line = self._next_closing = float("-inf")

    def admit(self, connection: LimitedConnection) -> bool:
        """Add a new connection. At the limit, the connections that have been idle longest are closed for it.

        Returns:
            False if none is idle: then the new connection is closed with status 503.
        """
        loop = asyncio.get_running_loop()
        if not self._handles_exceptions:
            loop.set_exception_handler(self._handle_exception)
            self._handles_exceptions = True
        if len(self._open) >= self._max_connections:
            self._close_idle(loop)
        if len(self._open) >= self._max_connections:
            connection.transport.write(_RESPONSE)
            connection.transport.close()
            self._refused += 1
            self._log_counts(loop)
            return False
        self._open.add(connection)
        return True

    def remove(self, connection: LimitedConnection) -> None:
        """Remove a closed connection."""
        self._open.discard(connection)

    def _close_idle(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close a sixteenth of the connections at once, to spread the cost of the search over as many new ones."""
        candidates = [(connection.idle_since, id(connection), connection) for connection in self._open]
        idle = sorted(candidate for candidate in candidates if candidate[0] is not None)
        for _, _, connection in idle[: max(1, self._max_connections // 16)]:
            self._open.discard(connection)
            connection.transport.close()
            self._closed += 1
        self._log_counts(loop)

    def _handle_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle a failed accept, which asyncio retries after a second, by closing idle connections."""
        if not isinstance(context.get("exception"), OSError) or "accept" not in context.get("message", ""):
            loop.default_exception_handler(context)
            return
        self._failed += 1
        if loop.time() >= self._next_closing:
            self._next_closing = loop.time() + _CLOSING_SECONDS
            self._close_idle(loop)
        self._log_counts(loop)

    def _log_counts(self, loop: asyncio.AbstractEventLoop) -> None:
        """Write the counts to the log, at most once per interval; later counts are logged at its end."""
        if not (self._refused or self._closed or self._failed):
            return
        if loop.time() < self._next_line:
            return
        self._next_line = loop.time() + _LOG_SECONDS
        log(
            logging.WARNING,
            event="connections",
            message=f"connection limit reached: {len(self._open)} of {self._max_connections} are open. Idle connections are "
            "closed for new ones; raise --max-connections and the limit of open files (ulimit -n) to keep more open",
            closed=self._closed,
            refused=self._refused,
            not_accepted=self._failed,
        )
        self._refused = self._closed = self._failed = 0
        loop.call_later(_LOG_SECONDS, self._log_counts, loop)


def raise_file_limit() -> int | None:
    """Raise the soft limit of open files as far as the hard limit allows, and return it; None if unlimited."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):  # macOS has a lower limit that getrlimit does not report
            pass
    return None if soft == resource.RLIM_INFINITY else soft


def resolve_max_connections(wanted: int | None, files: int | None) -> int:
    """Return the number of connections per process.

    Args:
        wanted: the setting `max_connections`, None for the default.
        files: limit of open files, None if unlimited.

    Raises:
        InputError: the setting exceeds the limit of open files, or that limit is too low.
    """
    if files is None:
        return wanted or DEFAULT_CONNECTIONS
    possible = files - ACCEPTED_AT_ONCE - _OTHER_FILES
    if possible < 2 * SPARE_CONNECTIONS:
        raise InputError(
            f"the limit of open files is {files}, which leaves {max(possible, 0)} for connections: raise it to at least 128 "
            "(ulimit -n)"
        )
    if wanted is not None and wanted > possible:
        raise InputError(
            f"max_connections = {wanted}; the limit of open files is {files}, which leaves {possible} for connections: raise it "
            "(ulimit -n, LimitNOFILE= of a systemd unit), or lower max_connections"
        )
    return wanted or min(DEFAULT_CONNECTIONS, possible)
