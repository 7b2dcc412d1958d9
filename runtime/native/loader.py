"""The package's native library: found, checked and loaded once, or the reason why it is not.

It is a plain shared library without Python's C API, so that one binary serves every Python of a platform. Nothing needs it:
without it the same ids come from `tokenizers`, and vectors from ONNX
Runtime's own kernels, only later.
"""

import ctypes
import sys
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from moembed.errors import NativeWarning, warn

ABI = 3  # kAbi of native/api.h
_NAMES = {"win32": "moembed_native.dll", "darwin": "libmoembed_native.dylib"}
LIBRARY_FILE = Path(__file__).parent / _NAMES.get(sys.platform, "libmoembed_native.so")
_warn_once = threading.Lock()


@dataclass(frozen=True)
class NativeLibrary:
    """What became of loading it.

    Attributes:
        functions: the loaded library, or None.
        reason: why it is None, and what to do; "" otherwise.
    """

    functions: ctypes.CDLL | None
    reason: str


@cache
def native_library() -> NativeLibrary:
    """Load the library beside this module, once per process; it never raises."""
    return open_library(LIBRARY_FILE)


def open_library(path: Path) -> NativeLibrary:
    """Load a library and check that it is ours and of this version; it never raises.

    Args:
        path: the file.
    """
    if not path.exists():
        return NativeLibrary(
            None,
            "it was not compiled when moembed was installed: install a C++17 compiler (g++, clang++ or cl) and then "
            "`pip install --force-reinstall --no-deps moembed`",
        )
    try:
        functions = ctypes.CDLL(str(path))
        functions.moembed_abi.restype = ctypes.c_int32
        abi = functions.moembed_abi()
    except (OSError, AttributeError) as error:
        return NativeLibrary(None, f"{path} cannot be loaded ({error}): install moembed again on this machine")
    if abi != ABI:
        return NativeLibrary(
            None, f"{path} has interface {abi}, this moembed speaks {ABI}: remove it and install moembed again"
        )
    return NativeLibrary(functions, "")


def warn_unused(reason: str) -> None:
    """Warn, once per process, that the native library is not used."""
    if _warn_once.acquire(blocking=False):
        message = f"starting and embedding take longer than they have to, the native library is not used: {reason}"
        warn(NativeWarning(message))
