"""Worker processes: started, replaced and stopped together; none outlives its parent process."""

import os
import signal
import sys
from socket import socket
from typing import Any

import uvicorn
from uvicorn.server import HANDLED_SIGNALS
from uvicorn.supervisors import Multiprocess, multiprocess

from moembed.server.parent import exit_with_parent
from moembed.server.process.uvicorn_server import Server, ignore_signals

_TICK_SECONDS = 0.1


class _Worker(multiprocess.Process):
    """uvicorn's worker process, with the server class of this package."""

    @property
    def server(self) -> Server:
        """Server, created in the worker process."""
        if self._server is None:
            self._server = Server(self.config)
        return self._server  # type: ignore[return-value]

    def start(self) -> None:
        """Start the process."""
        # Ctrl-C is sent to workers too, which may still be importing: signals stay blocked until the server handles them.
        if sys.platform == "win32":
            super().start()
            return
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()  # otherwise `start` starts it, which unblocks the signals
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_SIGNALS)
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def target(self, sockets: list[socket] | None = None) -> None:
        """Run the server; the main function of the process."""
        exit_with_parent()
        super().target(sockets)


# uvicorn has no setting for the worker class.
multiprocess.Process = _Worker  # type: ignore[misc]


class Workers(Multiprocess):
    """Supervisor of the workers: replaces those that die, until SIGTERM or SIGINT.

    Attributes:
        interrupted: whether SIGINT was received.
    """

    def __init__(self, config: uvicorn.Config, sockets: list[socket]) -> None:
        super().__init__(config, sockets)
        self.interrupted = self._force_exit = False

    def run(self) -> None:
        """Serve until a signal, and until all workers have drained; a SIGINT after that stops them at once."""
        super().run()
        ignore_signals()

    def handle_int(self) -> None:
        """Handle SIGINT."""
        self.interrupted = True
        self._force_exit = self._force_exit or self.should_exit.is_set()
        super().handle_int()

    def terminate_all(self) -> None:
        """Tell all workers to stop."""
        # Otherwise the kernel would go on accepting connections that no worker takes.
        for listener in self.sockets:
            listener.close()
        super().terminate_all()

    def join_all(self) -> None:
        """Wait for all workers to exit."""
        interrupted = False
        while running := [worker.process for worker in self.processes if worker.process.is_alive()]:
            self.handle_signals()
            if self._force_exit and not interrupted:
                interrupted = True
                for process in running:
                    _interrupt(process)
            running[0].join(_TICK_SECONDS)


def _interrupt(process: Any) -> None:
    if sys.platform == "win32":
        process.kill()
    else:
        os.kill(process.pid, signal.SIGINT)
