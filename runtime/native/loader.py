"""The package's native library: found, checked and loaded once, or the reason why it is not.

It is a plain shared library without Python's C API, so that one binary serves every Python version of a platform. It is
optional: without it, `tokenizers` gives the same ids, and ONNX Runtime's own kernels compute the vectors, both more slowly.
"""

import ctypes
import sys
import threading
from ctypes import POINTER, c_char_p, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from moembed.errors import NativeWarning, warn

ABI = 5  # kAbi of native/api.h
_NAMES = {"win32": "moembed_native.dll", "darwin": "libmoembed_native.dylib"}
LIBRARY_FILE = Path(__file__).parent / _NAMES.get(sys.platform, "libmoembed_native.so")
_warn_once = threading.Lock()


class Special(ctypes.Structure):
    """`moembed_special` of native/api.h."""

    _fields_ = (("bos", c_int32), ("eos", c_int32), ("pad", c_int32), ("source", ctypes.c_uint8 * 32))


class Tokens(ctypes.Structure):
    """`moembed_tokens` of native/api.h."""

    _fields_ = (("texts", c_int64), ("rows", c_void_p), ("ids", c_void_p), ("spans", c_void_p))


# The functions of native/api.h: result and arguments.
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "moembed_abi": (c_int32, []),
    "moembed_cpu": (None, [POINTER(c_char_p), POINTER(c_char_p)]),
    "moembed_kernels_usable": (c_int32, [c_int32, POINTER(c_char_p), POINTER(c_char_p)]),
    "moembed_float_mode_enter": (c_uint64, []),
    "moembed_float_mode_leave": (None, [c_uint64]),
    "moembed_tokenizer_open": (c_void_p, [c_void_p, c_uint64, POINTER(c_char_p)]),
    "moembed_tokenizer_close": (None, [c_void_p]),
    "moembed_tokenizer_special": (None, [c_void_p, POINTER(Special)]),
    "moembed_tokenizer_piece": (c_uint32, [c_void_p, c_int64, POINTER(c_void_p)]),
    "moembed_tokenizer_encode": (
        POINTER(Tokens),
        [c_void_p, c_char_p, c_void_p, c_int64, c_int32, c_int64, c_int32],
    ),
    "moembed_tokens_free": (None, [POINTER(Tokens)]),
}


@dataclass(frozen=True)
class NativeLibrary:
    """The loaded library, or why it is missing.

    Attributes:
        functions: the loaded library, or None.
        reason: why it is None, and what to do; "" otherwise.
    """

    functions: ctypes.CDLL | None
    reason: str


@cache
def native_library() -> NativeLibrary:
    """Load the library beside this module, once per process; never raises."""
    return open_library(LIBRARY_FILE)


def open_library(path: Path) -> NativeLibrary:
    """Load a library, check that it is this version's, and declare its functions; never raises.

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
        _declare(functions, "moembed_abi")
        abi = functions.moembed_abi()
        if abi == ABI:
            _declare(functions, *_SIGNATURES)
    except (OSError, AttributeError) as error:
        return NativeLibrary(None, f"{path} cannot be loaded ({error}): install moembed again on this machine")
    if abi != ABI:
        return NativeLibrary(
            None, f"{path} has interface {abi}, this moembed needs {ABI}: remove it and install moembed again"
        )
    return NativeLibrary(functions, "")


def _declare(library: ctypes.CDLL, *names: str) -> None:
    for name in names:
        function = getattr(library, name)
        function.restype, function.argtypes = _SIGNATURES[name]


def warn_unused(reason: str) -> None:
    """Warn, once per process, that the native library is not used."""
    if _warn_once.acquire(blocking=False):
        message = f"the native library is not used, so starting and embedding are slower: {reason}"
        warn(NativeWarning(message))
