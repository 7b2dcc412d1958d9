"""Worker processes: started, replaced and stopped together; none outlives the process that started them."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from socket import socket
from typing import Any

import uvicorn
from uvicorn.server import HANDLED_SIGNALS
from uvicorn.supervisors import Multiprocess, multiprocess

from moembed.server.process.uvicorn_server import Server, ignore_signals

_PR_SET_PDEATHSIG = 1
_TICK_SECONDS = 0.1


class _Worker(multiprocess.Process):
    """uvicorn's worker, with a server that signals do not make raise."""

    @property
    def server(self) -> Server:
        """The server; made in the worker."""
        if self._server is None:
            self._server = Server(self.config)
        return self._server  # type: ignore[return-value]

    def start(self) -> None:
        """Start the process."""
        # Ctrl-C reaches workers too, and must not find one that is importing: it waits until the server handles it.
        if sys.platform == "win32":
            super().start()
            return
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()  # else `start` starts it, which unblocks them
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_SIGNALS)
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def target(self, sockets: list[socket] | None = None) -> None:
        """What the process does."""
        _leave_with_parent()
        super().target(sockets)


# uvicorn has no setting for it.
multiprocess.Process = _Worker  # type: ignore[misc]


class Workers(Multiprocess):
    """The workers and what is done for them until SIGTERM or SIGINT: one that dies is replaced.

    Attributes:
        interrupted: whether a SIGINT came.
    """

    def __init__(self, config: uvicorn.Config, sockets: list[socket]) -> None:
        super().__init__(config, sockets)
        self.interrupted = self._hurried = False

    def run(self) -> None:
        """Serve until a signal comes and all workers have left; a SIGINT after that does not let them finish."""
        super().run()
        ignore_signals()

    def handle_int(self) -> None:
        """Called for a SIGINT."""
        self.interrupted = True
        self._hurried = self._hurried or self.should_exit.is_set()
        super().handle_int()

    def terminate_all(self) -> None:
        """Called when it stops."""
        # Else connections would go on being made that no worker takes.
        for listening in self.sockets:
            listening.close()
        super().terminate_all()

    def join_all(self) -> None:
        """Called when all workers have been told to stop."""
        hurried = False
        while running := [worker.process for worker in self.processes if worker.process.is_alive()]:
            self.handle_signals()
            if self._hurried and not hurried:
                hurried = True
                for process in running:
                    _interrupt(process)
            running[0].join(_TICK_SECONDS)


def _interrupt(process: Any) -> None:
    if sys.platform == "win32":
        process.kill()
    else:
        os.kill(process.pid, signal.SIGINT)


def _leave_with_parent() -> None:
    """Let this worker end at once when the process that started it has ended, however it did."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()  # until the other end of a pipe is closed, which it may be already
            os._exit(1)

    threading.Thread(target=watch, name="moembed-parent", daemon=True).start()
    if sys.platform == "linux":
        # Also while the interpreter is held up.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
