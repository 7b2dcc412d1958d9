"""End of a child process with its parent."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1


def exit_with_parent() -> None:
    """Make this child process exit as soon as its parent process has ended, for whatever reason."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()  # returns when the other end of a pipe is closed
            os._exit(1)

    threading.Thread(target=watch, name="moembed-parent", daemon=True).start()
    if sys.platform == "linux":
        # Works even while the GIL is held.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
