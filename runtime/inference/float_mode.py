"""Floating-point mode of the calling thread: rounding, and whether denormal numbers count as zero.

Libraries compiled with `-ffast-math` change it in the thread that imports them, other programs change the rounding, and new
threads inherit it. ONNX Runtime and NumPy compute in whatever mode they find, so vectors would depend on the thread that asks
for them. `DEFAULT_FLOAT_MODE` is a context manager and a decorator that sets the default mode: round to nearest, keep denormals.
Without the native library it does nothing.
"""

import threading
from contextlib import ContextDecorator

from moembed.native.loader import native_library


class _DefaultFloatMode(ContextDecorator):
    """The default mode while it is entered; threads and nested blocks each restore what they found."""

    def __init__(self) -> None:
        self._found = threading.local()

    def __enter__(self) -> None:
        if (library := native_library().functions) is not None:
            self._modes().append(library.moembed_float_mode_enter())

    def __exit__(self, *_error: object) -> None:
        if (library := native_library().functions) is not None:
            library.moembed_float_mode_leave(self._modes().pop())

    def _modes(self) -> list[int]:
        try:
            modes: list[int] = self._found.modes
        except AttributeError:
            modes = self._found.modes = []
        return modes


DEFAULT_FLOAT_MODE = _DefaultFloatMode()
