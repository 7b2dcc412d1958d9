"""A process that serves, and how signals stop it."""

import contextlib
import signal
from collections.abc import Iterator
from socket import socket
from types import FrameType

import uvicorn
from uvicorn.server import HANDLED_SIGNALS

from moembed.server.process.connection_limit import BACKLOG


class Server(uvicorn.Server):
    """uvicorn's server, which signals stop without raising an exception in it, however many come and when.

    The first SIGTERM or SIGINT lets it answer what was accepted, as long as the configuration says; a SIGINT after that
    lets it leave at once.

    Attributes:
        interrupted: whether a SIGINT came.
    """

    interrupted = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Called by uvicorn around all that it does."""
        for number in HANDLED_SIGNALS:
            signal.signal(number, self.handle_exit)
        with contextlib.suppress(AttributeError):  # Windows has no masks
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED_SIGNALS)
        try:
            yield
        finally:
            ignore_signals()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called for a signal."""
        self.interrupted = self.interrupted or sig == signal.SIGINT
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Called by uvicorn when it starts to listen."""
        await super().startup(sockets)
        for listening in sockets or ():
            # asyncio has one number for the connections that wait and for those that it accepts in a row.
            listening.listen(BACKLOG)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Called by uvicorn when it stops."""
        await super().shutdown(sockets)
        if self.force_exit:
            # uvicorn leaves it to the end of the event loop, which writes a traceback for each.
            for task in self.server_state.tasks:
                task.cancel()
            await self.lifespan.shutdown()


def ignore_signals() -> None:
    """Ignore what would stop the process: it is leaving, and its exit code is known."""
    for number in HANDLED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
