"""ONNX Runtime's telemetry, turned off before it can start.

From 1.32 on, the import of onnxruntime makes a device id and a database below `~/.cache/Microsoft`, starts a thread that
reports to Microsoft, and registers an exit handler that waits for this thread: for ever in a forked child, which has no such
thread. The variable `ORT_DISABLE_TELEMETRY` prevents all of it, if it is set before that import. Nothing undoes it later:
`onnxruntime.disable_telemetry_events()` leaves the thread, the files and the first report.
"""

import os
import sys
import threading

from moembed.errors import TelemetryWarning, warn

VARIABLE = "ORT_DISABLE_TELEMETRY"
FIRST_VERSION = (1, 32)  # of onnxruntime, whose builds for Linux and macOS report home
_warn_once = threading.Lock()
_too_late = False


def disable_telemetry() -> None:
    """Set the variable for this process and those it starts; a value that the user gave stays."""
    global _too_late
    if os.environ.get(VARIABLE):
        return
    _too_late = "onnxruntime" in sys.modules
    os.environ[VARIABLE] = "1"


def warn_if_started(version: tuple[int, ...]) -> None:
    """Warn, once per process, that onnxruntime was imported before moembed and may report.

    Args:
        version: of onnxruntime.
    """
    if _too_late and version >= FIRST_VERSION and _warn_once.acquire(blocking=False):
        message = (
            "onnxruntime was imported before moembed, with its telemetry on: it may report to Microsoft until this process "
            f"ends, and a forked child of it may not exit. Import moembed first, or set {VARIABLE}=1 in the environment "
            f"({VARIABLE}=0 says that you want it)"
        )
        warn(TelemetryWarning(message))
