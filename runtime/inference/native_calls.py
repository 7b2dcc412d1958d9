"""Counter of calls into ONNX Runtime, so that none is active when the interpreter exits.

At exit, Python unwinds the stack of a daemon thread when it returns from native code, and ONNX Runtime's binding then aborts the
process. So at exit we terminate active calls, wait for them to return, and block daemon threads that try to enter another
one, as Python itself would block them.
"""

import atexit
import os
import threading
from typing import Any

_EXIT_TIMEOUT = 30.0  # seconds; a call is terminated between two nodes of its graph


class NativeCalls:
    """Active calls of this process into ONNX Runtime; each call runs inside this context manager."""

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
        """Return the run options that terminate active calls, for every run of a session.

        Args:
            ort: the module onnxruntime.
        """
        with self._changed:
            self._run_options = self._run_options or ort.RunOptions()
            return self._run_options

    def end(self) -> None:
        """Terminate active calls, and wait until they have returned."""
        with self._changed:
            if self._running and self._run_options is not None:
                self._run_options.terminate = True
            self._ended = True
            self._changed.wait_for(lambda: not self._running, _EXIT_TIMEOUT)
            if self._run_options is not None:
                self._run_options.terminate = False  # later exit handlers may still embed

    def _hold_daemons(self) -> None:
        while self._ended and threading.current_thread().daemon:
            self._changed.wait()

    def _forget(self) -> None:
        # A forked child has one thread, which is not in a call.
        self._changed = threading.Condition()
        self._running, self._ended = 0, False


CALLS = NativeCalls()
atexit.register(CALLS.end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=CALLS._forget)
