"""HTTP protocol of a connection: uvicorn's, with timeouts and a graceful shutdown."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from moembed.server.process.connection_limit import ConnectionLimit

_CONNECTION_CLOSE = (b"connection", b"close")
# Time in which a stopping server still accepts requests that clients sent before they could know of the shutdown.
_SHUTDOWN_GRACE_SECONDS = 1.0


class HttpProtocol(H11Protocol):
    """HTTP/1.1 protocol with timeouts. uvicorn itself only limits the idle time between two requests.

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
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Handle a new connection; called by asyncio."""
        super().connection_made(transport)
        self._last_activity = self.loop.time()
        if self._limit is None or self._limit.admit(self):
            self._update_head_timer()

    def data_received(self, data: bytes) -> None:
        """Handle received bytes; called by asyncio."""
        if self.transport.is_closing():
            return
        self._last_activity = self.loop.time()
        super().data_received(data)
        self._update_head_timer()

    def _should_upgrade(self) -> bool:
        # The offer of another protocol (h2c, websocket) may be ignored (RFC 9110, section 7.8); uvicorn would log a warning.
        return False

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
        if _CONNECTION_CLOSE not in self.server_state.default_headers:
            self.server_state.default_headers = [*self.server_state.default_headers, _CONNECTION_CLOSE]
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
