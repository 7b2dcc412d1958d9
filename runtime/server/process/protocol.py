"""A client's connection, which is given up if nothing comes of it."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from moembed.server.process.connection_limit import Connections

# Tells a client not to send another request on the connection.
_LAST = (b"connection", b"close")
# How long a stopping server waits for requests that clients sent before they could know.
_FAREWELL_SECONDS = 1.0


class Connection(H11Protocol):
    """HTTP/1.1 of uvicorn, whose only limit of time is on connections that are silent between two requests.

    Args:
        arguments: what uvicorn gives.
        seconds: in which the head of a request has to arrive, and the rest of one that was refused before its end, and in which
            a client has to read some of an answer.
        connections: those of this process; None for any number.
        options: what uvicorn gives.
    """

    def __init__(self, *arguments: Any, seconds: float, connections: Connections | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._seconds, self._members = seconds, connections
        self._heard = 0.0
        self._head: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by asyncio: somebody has connected."""
        super().connection_made(transport)
        self._heard = self.loop.time()
        if self._members is None or self._members.admit(self):
            self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio: bytes of a request."""
        if self.transport.is_closing():
            return
        self._heard = self.loop.time()
        super().data_received(data)
        self._expect_head()

    def _should_upgrade(self) -> bool:
        # An offer of another protocol (h2c, websocket) may be ignored (RFC 9110, section 7.8), and is not worth a warning.
        return False

    def pause_writing(self) -> None:
        """Called by asyncio: the client does not read as fast as it is written to."""
        super().pause_writing()
        self._expect_progress(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Called by asyncio: nearly all has been sent."""
        super().resume_writing()
        _cancel(self._reading)
        self._reading = None

    def shutdown(self) -> None:
        """Called by uvicorn when it stops: the request that is being answered, or is on its way, is the last one."""
        if _LAST not in self.server_state.default_headers:
            self.server_state.default_headers = [*self.server_state.default_headers, _LAST]
        if self._answering:
            self.cycle.default_headers = self.server_state.default_headers
            super().shutdown()
        else:
            self.loop.call_later(_FAREWELL_SECONDS, self._no_head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio: it is over."""
        _cancel(self._head)
        _cancel(self._reading)
        self._head = self._reading = None
        if self._members is not None:
            self._members.forget(self)
        super().connection_lost(exc)

    @property
    def idle_since(self) -> float | None:
        """The loop's time since when it waits for a request, or None if one is being answered."""
        return None if self._answering or self.transport.get_write_buffer_size() else self._heard

    def on_response_complete(self) -> None:
        """Called by uvicorn: a request was answered."""
        self._heard = self.loop.time()
        super().on_response_complete()

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_head(self) -> None:
        if self._answering:
            _cancel(self._head)
            self._head = None
        elif self._head is None:  # more bytes do not buy more time
            self._head = self.loop.call_later(self._seconds, self._no_head)

    def _no_head(self) -> None:
        self._head = None
        if not self._answering:
            self.transport.close()

    def _expect_progress(self, unsent: int) -> None:
        self._reading = self.loop.call_later(self._seconds, self._progressed, unsent)

    def _progressed(self, before: int) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent < before:
            self._expect_progress(unsent)
        else:
            self.transport.abort()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
