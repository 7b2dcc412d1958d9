"""This machine's CPUs: how many there are, and their instructions for products of bytes."""

import ctypes
import functools
import math
import os
import platform
from pathlib import Path
from typing import NamedTuple

from moembed.inference.cgroups import cpu_quota
from moembed.native.loader import native_library

# Flag of /proc/cpuinfo -> the usual name, best first.
_INSTRUCTIONS = {
    "amx_int8": "AMX-INT8",
    "avx512_vnni": "AVX512-VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
    "i8mm": "NEON i8mm",
    "asimddp": "NEON dot product",
}
_VNNI = {"AMX-INT8", "AVX512-VNNI", "AVX-VNNI"}
_PRODUCTS = _VNNI | {"NEON i8mm", "NEON dot product"}


def available_cpus() -> int:
    """CPUs this process may use: its affinity, further limited by the quota of its control groups, rounded up."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    if quota is None:
        return cpus
    return max(min(cpus, math.ceil(quota)), 1)


class _Processor(NamedTuple):
    name: str
    flags: frozenset[str]


@functools.cache
def _processor() -> _Processor:
    library = native_library().functions
    if library is None:
        return _from_cpuinfo()
    name, flags = ctypes.c_char_p(), ctypes.c_char_p()
    library.moembed_cpu(ctypes.byref(name), ctypes.byref(flags))
    return _Processor(_decoded(name), frozenset(_decoded(flags).split()))


def _decoded(text: ctypes.c_char_p) -> str:
    return (text.value or b"").decode("ascii", errors="replace")


def _from_cpuinfo() -> _Processor:
    """The processor as Linux describes it; other systems tell only the native library."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:
        return _Processor("", frozenset())
    fields = [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in text.splitlines())]
    name = next((value for key, value in fields if key == "model name"), "")
    flags = next((value for key, value in fields if key in ("flags", "Features")), "")
    return _Processor(name, frozenset(flags.lower().split()))


def cpu_name() -> str:
    """The processor's name, such as "AMD EPYC 7763 64-Core Processor"; its architecture if the name is unknown."""
    return _processor().name or platform.processor() or platform.machine() or "unknown"


def instruction_sets() -> tuple[str, ...]:
    """The instruction sets for products of bytes that this CPU supports, best first; empty if unknown."""
    return tuple(name for flag, name in _INSTRUCTIONS.items() if flag in _processor().flags)


def saturates() -> bool:
    """Tell whether products of unsigned and signed bytes may saturate: x86 that is not known to have VNNI.

    Such a CPU adds pairs of products in 16 bits. ONNX Runtime then has to widen the weights first, which is exact and slower.
    """
    return platform.machine().lower() in ("x86_64", "amd64") and not _VNNI & set(instruction_sets())


def integer_products() -> str:
    """Describe how ONNX Runtime multiplies bytes on this CPU; every way gives the exact integers."""
    if saturates():
        return "exact and slower: without VNNI, bytes are widened before they are multiplied"
    best = next((name for name in instruction_sets() if name in _PRODUCTS), "ordinary instructions")
    return f"exact, by {best}"
