"""`moembed doctor`."""

import argparse
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from moembed.cli.common import Subparsers, emit, emit_json
from moembed.errors import MoembedError
from moembed.version import __version__

_PACKAGES = ("numpy", "tokenizers", "onnxruntime", "onnxruntime-gpu", "huggingface-hub", "torch", "onnx", "safetensors")
_INSTRUCTIONS = {
    "amx_int8": "AMX-INT8",
    "avx512_vnni": "AVX512-VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
    "i8mm": "NEON i8mm",
    "asimddp": "NEON dot product",
}


def add_parser(commands: "Subparsers[Any]") -> argparse.ArgumentParser:
    """Describe the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "doctor",
        help="what this machine has, and whether it works",
        description="Print versions, CPU instruction sets, execution providers and kernels, and embed one text.",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Look around; exit code 0 if the default model embeds a text, 1 if not."""
    from moembed.paths import cache_folder
    from moembed.session import available_cpus

    found: dict[str, Any] = {
        "moembed": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "machine": f"{platform.system()} {platform.machine()}, {available_cpus()} CPUs available",
        "instructions": ", ".join(instruction_sets()) or "unknown",
        "packages": ", ".join(f"{name} {version}" for name in _PACKAGES if (version := _version(name))),
        "providers": ", ".join(_providers()),
        "kernels": "portable (ONNX Runtime's own, from the functions in the graph)",
        "cache": str(cache_folder()),
    }
    problems = []
    if _version("onnxruntime") and _version("onnxruntime-gpu"):
        problems.append("onnxruntime and onnxruntime-gpu overwrite each other: uninstall both, then install one")
    try:
        from moembed.embedder import Embedder

        model = Embedder.from_pretrained()
        dim = model.encode("hello", prompt="").shape[0]
        found["default model"] = (
            f"{model.bundle.manifest.name}, {model.bundle.manifest.recipe}, {dim} dimensions: works"
        )
    except MoembedError as error:
        problems.append(str(error))
    found["problems"] = problems
    if arguments.json:
        emit_json(found)
    else:
        for name, value in found.items():
            emit(f"{name:<14} {'; '.join(value) or 'none' if isinstance(value, list) else value}")
    return 1 if problems else 0


def instruction_sets() -> list[str]:
    """The instruction sets among those that matter to int8 arithmetic which this CPU has, best first."""
    try:
        text = Path("/proc/cpuinfo").read_text("ascii", errors="replace")
    except OSError:
        text = _sysctl()
    words = set(text.lower().replace("feat_", "").replace("_t ", " ").split())
    return [name for flag, name in _INSTRUCTIONS.items() if flag in words]


def _sysctl() -> str:
    # macOS: hw.optional.arm.FEAT_DotProd: 1, machdep.cpu.leaf7_features: ... AVX2 ...
    try:
        text = subprocess.run(["/usr/sbin/sysctl", "-a"], capture_output=True, text=True, check=False, timeout=5).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    present = {"hw.optional.arm.feat_dotprod: 1": "asimddp", "hw.optional.arm.feat_i8mm: 1": "i8mm"}
    return " ".join(
        [flag for line, flag in present.items() if line in text.lower()] + ["avx2"] * ("AVX2" in text.split())
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _providers() -> list[str]:
    from moembed.session import import_onnxruntime

    try:
        return list(import_onnxruntime().get_available_providers())
    except MoembedError:
        return ["none: onnxruntime is not installed"]
