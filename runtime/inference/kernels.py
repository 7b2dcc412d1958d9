"""Which kernels compute a bundle's own operators: those of the native library, or the functions in the graph.

The functions run on any ONNX Runtime; kernels replace them where the library is there. One set of kernels serves one
instruction set, and every set gives the same bytes. The environment variable `MOEMBED_KERNELS` forces one.
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
_NAMES = (PORTABLE, "plain", "avx2", "avxvnni", "avx512vnni", "amx", "neon", "neoni8mm")


@dataclass(frozen=True)
class Kernels:
    """Kernels for one session.

    Attributes:
        name: `"portable"` for the functions in the graph, or an instruction set.
    """

    name: str

    def register(self, options: Any) -> None:
        """Put the kernels into ONNX Runtime's session options."""
        if self.name == PORTABLE:
            return
        functions = native_library().functions
        # The choice is the calling thread's, so that sessions made beside this one may have others.
        if functions is None or not functions.moembed_kernels_choose(self.name.encode()):
            raise ProviderError(f"kernels {self.name!r} went away: {native_library().reason or 'not usable here'}")
        options.register_custom_ops_library(str(LIBRARY_FILE))


@cache
def usable_kernels() -> tuple[str, ...]:
    """The kernels that can run here, best first; `"portable"` is always the last."""
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
    """The best kernels that can run here, or those that are asked for; warns once if there is no native library.

    Args:
        wanted: a name, or None for the environment variable `MOEMBED_KERNELS`, and without that for the best.

    Raises:
        InputError: there are no kernels of this name.
        ProviderError: they cannot run here.
    """
    wanted = wanted or os.environ.get(VARIABLE) or None
    usable = usable_kernels()
    if wanted is None:
        if reason := native_library().reason:
            warn_unused(reason)
        return Kernels(usable[0])
    if wanted not in _NAMES:
        raise InputError(f"{VARIABLE} = {wanted!r}; expected one of {', '.join(_NAMES)}")
    if wanted not in usable:
        reason = native_library().reason or "this processor has not these instructions"
        raise ProviderError(f"asked for kernels {wanted!r}, here are only {', '.join(usable)}: {reason}")
    return Kernels(wanted)
