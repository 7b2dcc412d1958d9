"""Kernels for a bundle's own operators: those of the native library, or the functions in the graph.

The functions run on any ONNX Runtime. Kernels replace them where the native library is available. There is one set of kernels
per instruction set, and every set gives the same bytes. The environment variable `MOEMBED_KERNELS` selects one.
"""

import ctypes
import os
from dataclasses import dataclass
from functools import cache
from typing import Any

from moembed.errors import InputError, ProviderError
from moembed.native.loader import LIBRARY_FILE, native_library, warn_unused

PORTABLE = "portable"
VARIABLE = "MOEMBED_KERNELS"
CONFIG_ENTRY = "moembed.kernels"  # kKernelsEntry of native/ort/register.cpp
THREADS_ENTRY = "moembed.threads"  # kThreadsEntry there
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


@cache
def usable_kernels() -> tuple[str, ...]:
    """Names of the kernels that this machine can run, best first; `"portable"` is always the last."""
    functions = native_library().functions
    if functions is None:
        return (PORTABLE,)
    found, name = [], ctypes.c_char_p()
    for index in range(len(_NAMES)):
        usable = functions.moembed_kernels_usable(index, ctypes.byref(name))
        if name.value is None:
            break
        if usable:
            found.append(name.value.decode())
    return (*found, PORTABLE)


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
        return Kernels(usable_kernels()[0])
    if wanted not in _NAMES:
        raise InputError(f"{VARIABLE} is {wanted!r}; expected one of {', '.join(_NAMES)}")
    _check_usable(wanted)
    return Kernels(wanted)


def _check_usable(name: str) -> None:
    usable = usable_kernels()
    if name not in usable:
        reason = native_library().reason or "this CPU does not support them"
        raise ProviderError(f"kernels {name!r} cannot be used, only {', '.join(usable)}: {reason}")
