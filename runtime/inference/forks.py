"""Values that a forked child must not share with its parent: ONNX Runtime's sessions.

A session's threads do not survive a fork. The child could run it on one thread, unless another thread of the parent was
inside it at that moment, and would wait for ever when it destroys it: at its exit, mostly. So a child opens a session of its
own when it first needs one, and never destroys the one that it inherited.
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
    """A value that every process makes for itself when it first asks; safe to share between threads.

    Args:
        make: makes the value. It must not refer to the owner of this object, which would then be freed late.
        value: that of this process, if it is made already.
    """

    def __init__(self, make: Callable[[], T], value: T | None = None) -> None:
        self._make, self._value = make, value
        self._lock = threading.Lock()
        _all.add(self)

    def get(self) -> T:
        """The value of this process; what `make` raises comes through, and the next call tries again."""
        with self._lock:
            if self._value is None:
                self._value = self._make()
            return self._value

    def _abandon(self) -> None:
        if self._value is not None:
            # A reference too many: the inherited value outlives even the interpreter.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._value))
        self._value, self._lock = None, threading.Lock()  # the lock may have been held


def _abandon_all() -> None:
    for value in list(_all):
        value._abandon()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_abandon_all)
