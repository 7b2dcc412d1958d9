"""`moembed doctor`."""

import argparse
import platform
import sys
from importlib import metadata
from typing import Any

from moembed.cli.common import Subparsers, emit, emit_json
from moembed.errors import MoembedError
from moembed.version import __version__

_PACKAGES = ("numpy", "tokenizers", "onnxruntime", "onnxruntime-gpu", "huggingface-hub", "torch", "onnx", "safetensors")


def add_parser(commands: "Subparsers[Any]") -> argparse.ArgumentParser:
    """Define the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "doctor",
        help="check this installation",
        description="Print versions, CPU instruction sets, execution providers and kernels, then embed a text.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the report; exit code 0 if the built-in model embeds a text, 1 if not."""
    from moembed.files.paths import cache_folder
    from moembed.inference.cpu import available_cpus, instruction_sets, integer_products
    from moembed.inference.kernels import refused_kernels, usable_kernels
    from moembed.inference.wheels import conflict, installed_wheels
    from moembed.native.loader import LIBRARY_FILE, native_library

    library, wheels = native_library(), installed_wheels()
    found: dict[str, Any] = {
        "moembed": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "machine": f"{platform.system()} {platform.machine()}, {available_cpus()} CPUs available",
        "instructions": ", ".join(instruction_sets()) or "unknown",
        "packages": ", ".join(f"{name} {version}" for name in _PACKAGES if (version := _version(name))),
        "providers": ", ".join(_providers()),
        "int8 products": integer_products(),
        "native library": str(LIBRARY_FILE) if library.functions else f"not used: {library.reason}",
        "kernels": f"of {', '.join(usable_kernels())}",
        "refused": [f"{name}: {reason}" for name, reason in refused_kernels().items()],
        "data": _data_folder(),
        "cache": str(cache_folder() or "none: this user has no home folder; set MOEMBED_CACHE to a folder"),
    }
    problems = []
    if problem := conflict(wheels):
        problems.append(problem)
    try:
        from moembed.embedder import Embedder

        model = Embedder.from_pretrained()
        dim = model.encode("hello", prompt="").shape[0]
        found["kernels"] = f"{model.kernels}, {found['kernels']}"
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


def _data_folder() -> str:
    from moembed.store.place import VARIABLE, data_folder

    try:
        return str(data_folder() or f"none: this user has no home folder; set {VARIABLE} to a folder")
    except MoembedError as error:
        return f"none: {error}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _providers() -> list[str]:
    from moembed.inference.session import import_onnxruntime

    try:
        return list(import_onnxruntime().get_available_providers())
    except MoembedError:
        return ["none"]  # the problems below give the reason
