"""uvicorn server with the shutdown behaviour of `moembed serve`."""

import contextlib
import signal
from collections.abc import Iterator
from socket import socket
from types import FrameType

import uvicorn
from uvicorn.server import HANDLED_SIGNALS

from moembed.server.process.connection_limit import BACKLOG
from moembed.server.process.protocol import CONNECTION_CLOSE


class Server(uvicorn.Server):
    """Server that signals stop without raising an exception, however many arrive and when.

    On the first SIGTERM or SIGINT it drains accepted requests, up to the configured time. A SIGINT after that stops it at once.

    Attributes:
        interrupted: whether SIGINT was received.
    """

    interrupted = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals in the block; uvicorn calls it around everything it does."""
        for number in HANDLED_SIGNALS:
            signal.signal(number, self.handle_exit)
        with contextlib.suppress(AttributeError):  # Windows has no signal masks
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED_SIGNALS)
        try:
            yield
        finally:
            ignore_signals()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.interrupted = self.interrupted or sig == signal.SIGINT
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Start to listen; called by uvicorn."""
        await super().startup(sockets)
        for listener in sockets or ():
            # asyncio uses `backlog` both for the listen queue and for the connections that it accepts per event.
            listener.listen(BACKLOG)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Stop; called by uvicorn."""
        # From now on every response ends its connection, also one that is not known yet.
        self.server_state.default_headers = [*self.server_state.default_headers, CONNECTION_CLOSE]
        await super().shutdown(sockets)
        if self.force_exit:
            # Otherwise the event loop cancels the tasks when it closes, with a traceback for each.
            for task in self.server_state.tasks:
                task.cancel()
            await self.lifespan.shutdown()


def ignore_signals() -> None:
    """Ignore further stop signals: the process is exiting, and its exit code is known."""
    for number in HANDLED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
