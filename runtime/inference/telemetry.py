"""Opt-out of ONNX Runtime's telemetry, before it can start.

Since 1.32, importing onnxruntime creates a device id and a database in `~/.cache/Microsoft`, starts a thread that reports to
Microsoft, and registers an exit handler that waits for this thread: forever in a forked child, which does not have the
thread. Setting `ORT_DISABLE_TELEMETRY` before that import prevents all of this. Nothing undoes it afterwards:
`onnxruntime.disable_telemetry_events()` leaves the thread, the files and the first report.
"""

import os
import sys
import threading

from moembed.errors import TelemetryWarning, warn

VARIABLE = "ORT_DISABLE_TELEMETRY"
FIRST_VERSION = (1, 32)  # of onnxruntime with telemetry on Linux and macOS
_warn_once = threading.Lock()
_too_late = False


def disable_telemetry() -> None:
    """Set the variable for this process and its children, unless the user has set it."""
    global _too_late
    if os.environ.get(VARIABLE):
        return
    _too_late = "onnxruntime" in sys.modules
    os.environ[VARIABLE] = "1"


def warn_if_started(version: tuple[int, ...]) -> None:
    """Warn, once per process, if onnxruntime was imported before moembed and may report.

    Args:
        version: of onnxruntime.
    """
    if _too_late and version >= FIRST_VERSION and _warn_once.acquire(blocking=False):
        message = (
            "onnxruntime was imported before moembed, with its telemetry on: it may report to Microsoft until this process "
            f"exits, and forked children may hang at exit. Import moembed first, or set {VARIABLE}=1 in the environment "
            f"({VARIABLE}=0 keeps the telemetry on without this warning)"
        )
        warn(TelemetryWarning(message))
