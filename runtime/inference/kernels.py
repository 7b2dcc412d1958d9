"""Kernels for a bundle's own operators: those of the native library, or the functions in the graph.

The functions run on any ONNX Runtime. Kernels replace them where the native library is available. There is one set of kernels
per instruction set, and every set gives the same bytes. The environment variable `MOEMBED_KERNELS` selects one.
"""

import ctypes
import os
import threading
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from moembed.errors import InputError, NativeWarning, ProviderError, warn
from moembed.native.loader import LIBRARY_FILE, native_library, warn_unused

PORTABLE = "portable"
VARIABLE = "MOEMBED_KERNELS"
CONFIG_ENTRY = "moembed.kernels"  # kKernelsEntry of native/ort/register.cpp
THREADS_ENTRY = "moembed.threads"  # kThreadsEntry there
_warn_once = threading.Lock()
_NAMES = (PORTABLE, "plain", "avx2", "avxvnni", "avx512vnni", "amx", "neon", "neoni8mm")


@dataclass(frozen=True)
class Kernels:
    """Kernels for one session.

    Attributes:
        name: `"portable"` for the functions in the graph, or an instruction set.
    """

    name: str

    def register(self, options: Any, threads: int | None = None) -> None:
        """Add the kernels to ONNX Runtime's session options.

        Args:
            options: `onnxruntime.SessionOptions`.
            threads: threads of a call, for which the kernels divide their work; None for the number of CPUs.

        Raises:
            ProviderError: this machine cannot run them.
        """
        if self.name == PORTABLE:
            return
        _check_usable(self.name)
        options.add_session_config_entry(CONFIG_ENTRY, self.name)
        if threads is not None:
            options.add_session_config_entry(THREADS_ENTRY, str(threads))
        options.register_custom_ops_library(str(LIBRARY_FILE))


class _Table(NamedTuple):
    name: str
    usable: bool
    refused_here: bool  # to this process; another one may have it
    reason: str  # why not, although the processor has the instructions


@cache
def _tables() -> tuple[_Table, ...]:
    """The native kernels for this kind of processor, best first."""
    functions = native_library().functions
    if functions is None:
        return ()
    found: list[_Table] = []
    name, reason = ctypes.c_char_p(), ctypes.c_char_p()
    for index in range(len(_NAMES)):
        usable = functions.moembed_kernels_usable(index, ctypes.byref(name), ctypes.byref(reason))
        if name.value is None:
            break
        found.append(_Table(name.value.decode(), usable == 1, usable < 0, (reason.value or b"").decode()))
    return tuple(found)


def usable_kernels() -> tuple[str, ...]:
    """Names of the kernels that this machine can run, best first; `"portable"` is always the last."""
    return (*(table.name for table in _tables() if table.usable), PORTABLE)


def refused_kernels() -> dict[str, str]:
    """Kernels whose instructions the processor has, but the system or a sandbox does not let this process use: name -> reason."""
    return {table.name: table.reason for table in _tables() if table.reason}


def choose_kernels(wanted: str | None = None) -> Kernels:
    """Return the best kernels that this machine can run, or the requested ones; warn once without a native library.

    Args:
        wanted: a name; None for the environment variable `MOEMBED_KERNELS`, or the best if that is not set.

    Raises:
        InputError: there are no kernels of this name.
        ProviderError: this machine cannot run them.
    """
    wanted = wanted or os.environ.get(VARIABLE) or None
    if wanted is None:
        if reason := native_library().reason:
            warn_unused(reason)
        best = usable_kernels()[0]
        _warn_refused(best)
        return Kernels(best)
    if wanted not in _NAMES:
        raise InputError(f"{VARIABLE} is {wanted!r}; expected one of {', '.join(_NAMES)}")
    _check_usable(wanted)
    return Kernels(wanted)


def _warn_refused(best: str) -> None:
    """Warn, once per process, of kernels that the next process may have: `moembed doctor` there would not show it."""
    for table in _tables():
        if table.refused_here and _warn_once.acquire(blocking=False):
            message = f"kernels {table.name!r} are refused to this process, so embedding is slower: {table.reason}. "
            warn(NativeWarning(f"{message}{VARIABLE}={best} selects the next best without this warning"))


def _check_usable(name: str) -> None:
    usable = usable_kernels()
    if name not in usable:
        reason = native_library().reason or refused_kernels().get(name) or "this CPU does not support them"
        raise ProviderError(f"kernels {name!r} cannot be used, only {', '.join(usable)}: {reason}")
