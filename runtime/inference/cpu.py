"""What this machine's processor can do, as far as the arithmetic of small integers is concerned."""

import functools
import math
import os
import platform
from pathlib import Path

from moembed.inference.cgroups import cpu_quota

# Flag in /proc/cpuinfo -> what people call it, best first.
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
    return cpus if quota is None else max(min(cpus, math.ceil(quota)), 1)


@functools.cache
def instruction_sets() -> tuple[str, ...]:
    """The instruction sets that matter here and that this CPU is known to have, best first; empty if it cannot be told."""
    try:
        text = Path("/proc/cpuinfo").read_text("ascii", errors="replace")
    except OSError:
        text = _sysctl()
    words = set(text.lower().split())
    return tuple(name for flag, name in _INSTRUCTIONS.items() if flag in words)


def saturates() -> bool:
    """Whether products of unsigned and signed bytes may saturate: x86 that is not known to have VNNI.

    Such a CPU adds pairs of products in 16 bits. ONNX Runtime then has to widen the weights first, which is exact and slower.
    """
    return platform.machine().lower() in ("x86_64", "amd64") and not _VNNI & set(instruction_sets())


def integer_products() -> str:
    """How ONNX Runtime multiplies bytes on this CPU, in words; every way gives the exact integers."""
    if saturates():
        return "exact, the slow way: no VNNI here, so that bytes are widened before they are multiplied"
    best = next((name for name in instruction_sets() if name in _PRODUCTS), "ordinary instructions")
    return f"exact, by {best}"


def _sysctl() -> str:
    import subprocess

    # macOS: "hw.optional.arm.FEAT_DotProd: 1", "machdep.cpu.leaf7_features: ... AVX2 ..."
    try:
        command = ["/usr/sbin/sysctl", "-a"]
        text = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    present = {"hw.optional.arm.feat_dotprod: 1": "asimddp", "hw.optional.arm.feat_i8mm: 1": "i8mm"}
    return " ".join(
        [flag for line, flag in present.items() if line in text.lower()] + ["avx2"] * ("AVX2" in text.split())
    )
