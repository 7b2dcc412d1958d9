"""Calls into ONNX Runtime, counted, so that none is under way when the interpreter ends.

Python ends a daemon thread by unwinding its stack as soon as it comes back from native code, which ONNX Runtime's binding
answers by aborting the process. So the end of the interpreter stops the calls that run, waits until they have left, and lets
no daemon thread in any more; such threads wait for the end of the process, as they would in Python.
"""

import atexit
import os
import threading
from typing import Any

_PATIENCE = 30.0  # seconds; a call is stopped between two nodes of its graph


class NativeCalls:
    """The calls of this process that are in ONNX Runtime: a context around each of them."""

    def __init__(self) -> None:
        self._run_options: Any = None
        self._forget()

    def __enter__(self) -> None:
        with self._changed:
            self._hold_daemons()
            self._running += 1

    def __exit__(self, *_error: object) -> None:
        with self._changed:
            self._running -= 1
            self._changed.notify_all()
            self._hold_daemons()

    def run_options(self, ort: Any) -> Any:
        """ONNX Runtime's options by which running calls are stopped, for every run of a session.

        Args:
            ort: the module onnxruntime.
        """
        with self._changed:
            self._run_options = self._run_options or ort.RunOptions()
            return self._run_options

    def end(self) -> None:
        """Stop the calls that run, and wait until they have."""
        with self._changed:
            if self._running and self._run_options is not None:
                self._run_options.terminate = True
            self._ended = True
            self._changed.wait_for(lambda: not self._running, _PATIENCE)
            if self._run_options is not None:
                self._run_options.terminate = False  # a later exit handler may still embed

    def _hold_daemons(self) -> None:
        while self._ended and threading.current_thread().daemon:
            self._changed.wait()

    def _forget(self) -> None:
        # A forked child has one thread, and it is in no call.
        self._changed = threading.Condition()
        self._running, self._ended = 0, False


CALLS = NativeCalls()
atexit.register(CALLS.end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=CALLS._forget)
