"""HTTP protocol of a connection: uvicorn's, with timeouts and a graceful shutdown."""

import asyncio
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from moembed.server.process.connection_limit import ConnectionLimit
from moembed.server.process.joined_writes import JoinedWrites

# In the default headers of a server that stops.
CONNECTION_CLOSE = (b"connection", b"close")
_KEEP_ALIVE = (b"connection", b"keep-alive")
_MAX_HEAD_BYTES = 65536
# Time in which a stopping server still accepts requests that clients sent before they could know of the shutdown.
_SHUTDOWN_GRACE_SECONDS = 1.0


class HttpProtocol(HttpToolsProtocol):
    """HTTP/1.1 protocol with timeouts and a largest head; uvicorn itself only limits the idle time between two requests.

    Connections of HTTP/1.0 clients that ask for it are kept open too: some load generators and proxies know no later version.

    Args:
        arguments: arguments from uvicorn.
        timeout: seconds in which the head of a request has to arrive, and the rest of a body that was rejected before its end;
            also seconds in which a client has to read a part of a response.
        limit: connection limit of this process; None for no limit.
        options: keyword arguments from uvicorn.
    """

    def __init__(self, *arguments: Any, timeout: float, limit: ConnectionLimit | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._timeout, self._limit = timeout, limit
        self._last_activity = 0.0
        self._head_bytes: int | None = None  # received of an incomplete head, after the read that it began in
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Handle a new connection; called by asyncio."""
        # Declared as a class that it has all methods of.
        super().connection_made(JoinedWrites(transport, self.loop))  # type: ignore[arg-type]
        self._last_activity = self.loop.time()
        if self._limit is None or self._limit.admit(self):
            self._update_head_timer()
        if CONNECTION_CLOSE in self.server_state.default_headers:  # accepted just before, and unknown to uvicorn then
            self.shutdown()

    def data_received(self, data: bytes) -> None:
        """Handle received bytes; called by asyncio."""
        if self.transport.is_closing():
            return
        self._last_activity = self.loop.time()
        if self._head_bytes is not None:
            self._head_bytes += len(data)
        self._unset_keepalive_if_required()
        self._parse(data)
        if self._head_bytes is not None and self._head_bytes > _MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The head of the request is longer than {_MAX_HEAD_BYTES} bytes.")
        self._update_head_timer()

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            # An offer of another protocol may be ignored (RFC 9110, section 7.8), but the parser stops behind it.
            head = self._head_without_offer()
            self.parser = httptools.HttpRequestParser(self)
            self._parse(head + data[offer.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

    def on_message_begin(self) -> None:
        """Handle the beginning of a head; called by the parser."""
        super().on_message_begin()
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """Handle a complete head; called by the parser.

        Raises:
            ValueError: the request has another version than 1.0 and 1.1, not one host, or is for a proxy (CONNECT). The parser
                turns it into its own error.
        """
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            return
        version, target = self.parser.get_http_version(), self.url
        hosts = sum(name == b"host" for name, _ in self.headers)
        if (
            version not in ("1.0", "1.1")
            or hosts > 1
            or (version == "1.1" and not hosts)
            or self.parser.should_upgrade()
        ):
            raise ValueError("not a request of HTTP/1.0 or 1.1 to an origin server")
        self._head_bytes = None
        self.url = b"/"  # uvicorn refuses targets that belong to another program, such as those of a proxy
        super().on_headers_complete()
        raw_path, _, self.scope["query_string"] = target.partition(b"?")
        self.scope["raw_path"], self.scope["path"] = raw_path, unquote(raw_path.decode("ascii"))
        if version == "1.0" and self.parser.should_keep_alive():
            self.cycle.keep_alive = True
            self.cycle.default_headers = [*self.cycle.default_headers, _KEEP_ALIVE]

    def _head_without_offer(self) -> bytes:
        start = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        lines = [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([start, *lines, b"", b""])

    def _should_upgrade(self) -> bool:
        return True  # whatever the parser reports; uvicorn then waits for the request without the offer

    def pause_writing(self) -> None:
        """Start the write timeout when the client reads too slowly; called by asyncio."""
        super().pause_writing()
        self._start_write_timer(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Stop the write timeout when the buffer has drained; called by asyncio."""
        super().resume_writing()
        _cancel(self._write_timer)
        self._write_timer = None

    def shutdown(self) -> None:
        """Close the connection after the current request, or one that arrives within a second; called by uvicorn."""
        if self._busy:
            self.cycle.default_headers = self.server_state.default_headers
            super().shutdown()
        else:
            self.loop.call_later(_SHUTDOWN_GRACE_SECONDS, self._close_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """Handle the end of the connection; called by asyncio."""
        _cancel(self._head_timer)
        _cancel(self._write_timer)
        self._head_timer = self._write_timer = None
        if self._limit is not None:
            self._limit.remove(self)
        super().connection_lost(exc)

    @property
    def idle_since(self) -> float | None:
        """Loop time since which the connection waits for a request; None while a request is in progress."""
        return None if self._busy or self.transport.get_write_buffer_size() else self._last_activity

    def on_response_complete(self) -> None:
        """Handle the end of a response; called by uvicorn."""
        self._last_activity = self.loop.time()
        super().on_response_complete()

    @property
    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _update_head_timer(self) -> None:
        if self._busy:
            _cancel(self._head_timer)
            self._head_timer = None
        elif self._head_timer is None:  # more bytes do not extend the timeout
            self._head_timer = self.loop.call_later(self._timeout, self._close_if_idle)

    def _close_if_idle(self) -> None:
        self._head_timer = None
        if not self._busy:
            self.transport.close()

    def _start_write_timer(self, unsent: int) -> None:
        self._write_timer = self.loop.call_later(self._timeout, self._check_progress, unsent)

    def _check_progress(self, before: int) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent < before:
            self._start_write_timer(unsent)
        else:
            self.transport.abort()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
