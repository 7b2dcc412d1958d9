"""Values that a forked child must not share with its parent: ONNX Runtime's sessions.

The threads of a session do not survive a fork. In the child, an inherited session can deadlock when it runs (if another thread
of the parent was inside it during the fork), and always does when it is destroyed, usually at exit. So a child opens its own
session on first use, and never destroys the inherited one.
"""

import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_all: "weakref.WeakSet[PerProcess[Any]]" = weakref.WeakSet()


class PerProcess(Generic[T]):
    """Value that each process creates on first use. Safe to share between threads.

    Args:
        make: creates the value. It must not reference the owner of this object, which would delay freeing it.
        value: value of this process, if it exists already.
    """

    def __init__(self, make: Callable[[], T], value: T | None = None) -> None:
        self._make, self._value = make, value
        self._lock = threading.Lock()
        _all.add(self)

    def get(self) -> T:
        """Return the value of this process; if `make` raises, the next call tries again."""
        with self._lock:
            if self._value is None:
                self._value = self._make()
            return self._value

    def _abandon(self) -> None:
        if self._value is not None:
            # An extra reference, so that the inherited value is never destroyed.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._value))
        self._value, self._lock = None, threading.Lock()  # another thread may have held the lock


def _abandon_all() -> None:
    for value in list(_all):
        value._abandon()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_abandon_all)
