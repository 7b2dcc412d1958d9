"""Finds the packages below their folders, and adds the native library if there is a C++ compiler.

Without a compiler the package is pure Python.

`MOEMBED_NATIVE=off` leaves the library out, `require` makes its failure an error. `MOEMBED_PLATFORM` is the platform tag
of a wheel for another machine, for which `CXX` has to compile.
"""

import importlib.util
import os
import sys
import tomllib
from functools import cache
from pathlib import Path

from setuptools import Distribution, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
TAG = os.environ.get("MOEMBED_PLATFORM")
_BUILD = ("moembed.native", "build")


def _load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


native = _load(ROOT / "runtime" / "native" / "build.py")


@cache
def library() -> Path | None:
    """Compile the library once; None if it is not wanted or cannot be had."""
    wanted = os.environ.get("MOEMBED_NATIVE", "auto")
    if wanted == "off":
        return None
    target = native.Target.of(TAG)
    try:
        return native.build(ROOT / "build" / "native" / f"{target.system}-{target.machine}", target)
    except native.BuildError as error:
        if wanted == "require":
            raise
        print(f"moembed: the native library is left out, everything works without it, later: {error}", file=sys.stderr)
        return None


def packages() -> list[str]:
    """Every package in the folders that pyproject.toml maps."""
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-dir"]
    by_folder: dict[str, str] = {}
    # Outer folders first: what lies in models/train belongs to its own entry, not to that of models.
    for package, folder in sorted(folders.items(), key=lambda item: len(item[1])):
        by_folder[folder] = package
        by_folder |= {
            f"{folder}/{name.replace('.', '/')}": f"{package}.{name}" for name in find_packages(ROOT / folder)
        }
    return sorted(by_folder.values())


class NativeDistribution(Distribution):
    """A distribution that is for one platform if it has the library."""

    def has_ext_modules(self) -> bool:
        return library() is not None


class BuildWithLibrary(build_py):
    """Puts the library beside its loader, in the source folder when it is installed for editing."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """Modules of a package; the program that compiles the library is not one of them."""
        return [found for found in super().find_package_modules(package, package_dir) if found[:2] != _BUILD]

    def run(self) -> None:
        super().run()
        if (built := library()) is not None:
            folder = (ROOT / "runtime" if self.editable_mode else Path(self.build_lib) / "moembed") / "native"
            folder.mkdir(parents=True, exist_ok=True)
            partial = folder / (built.name + ".partial")
            self.copy_file(str(built), str(partial))
            partial.replace(folder / built.name)  # a process may have the old one mapped


class AnyPythonWheel(bdist_wheel):
    """The library is loaded by ctypes: one wheel per platform serves every Python."""

    def get_tag(self) -> tuple[str, str, str]:
        platform = super().get_tag()[2]
        return "py3", "none", TAG or platform if library() else platform


setup(
    packages=packages(),
    distclass=NativeDistribution,
    cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": AnyPythonWheel},
)
