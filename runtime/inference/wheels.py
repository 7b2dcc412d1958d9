"""Wheels of ONNX Runtime: which are installed, and the command that leaves exactly one.

`onnxruntime`, `onnxruntime-gpu` and other builds unpack into the same folder. Of two that are installed, the later one has
overwritten files of the other; if one of two is uninstalled, files of the other are gone while pip still lists it.
"""

import platform
import sys
from importlib import metadata

FOLDER = "onnxruntime"
CPU, GPU = "onnxruntime", "onnxruntime-gpu"
MINIMUM = (1, 30)


def installed_wheels() -> dict[str, str]:
    """Return the installed packages that unpack into the folder `onnxruntime`, with their versions."""
    names = sorted(set(metadata.packages_distributions().get(FOLDER, [])))
    return {name: metadata.version(name) for name in names}


def listed(wheels: dict[str, str]) -> str:
    """Return the packages as text, for an error."""
    return " and ".join(f"{name} {version}" for name, version in wheels.items()) or "none"


def repair_command(wanted: str, wheels: dict[str, str]) -> str:
    """Return the command that removes all packages and installs one of them.

    Args:
        wanted: package to install.
        wheels: the packages that are installed.
    """
    pip = "uv pip" if any(_installer(name) == "uv" for name in wheels) else "pip"
    yes = "" if pip == "uv pip" else "-y "
    names = " ".join(sorted({CPU, wanted, *wheels}))
    return f'{pip} uninstall {yes}{names} && {pip} install "{requirement(wanted)}"'


def requirement(package: str) -> str:
    """Return what to install of a package."""
    return f"{package}>={'.'.join(map(str, MINIMUM))}"


def preferred(wheels: dict[str, str]) -> str:
    """Return the package to keep: moembed itself asks for `onnxruntime`, so any other was chosen."""
    return next((name for name in wheels if name != CPU), CPU)


def conflict(wheels: dict[str, str]) -> str | None:
    """Return what is wrong with the installed packages and what to do, or None if there is at most one."""
    if len(wheels) < 2:
        return None
    return (
        f"{listed(wheels)} overwrite each other's files, so that only the one installed last works: "
        f"{repair_command(preferred(wheels), wheels)}"
    )


def no_wheel() -> str:
    """Return what to do where onnxruntime is not installed."""
    return (
        f'pip install "{requirement(CPU)}". If there is no such version for this system ({platform.platform()}, Python '
        f"{sys.version.split()[0]}): onnxruntime has wheels for Linux with glibc 2.28 or newer (not musl), for macOS 14 or "
        "newer on Apple silicon, and for Windows; elsewhere use a container of such a Linux, or build onnxruntime"
    )


def _installer(package: str) -> str:
    return (metadata.distribution(package).read_text("INSTALLER") or "").strip()
