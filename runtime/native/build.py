"""Compiles the native library with any C++ compiler; sources.toml lists the sources and flags.

    python runtime/native/build.py [FOLDER] [--sanitize]

`pip install` runs this through setup.py. `CXX` names the compiler, and may contain arguments.

This is not CMake, because then an installation from source would need CMake, where now a compiler is enough and even that is
optional: without one, moembed installs as pure Python. The library uses neither Python's C API nor other libraries, so there is
nothing to search for. One wheel `py3-none-PLATFORM` serves every Python version, cross-compiled by calling zig as `CXX`. Tests
compile the same sources with sanitizers, and with an emulation of AMX, by the same function.
"""

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

NATIVE = Path(__file__).resolve().parent
_COMPILERS = ("c++", "g++", "clang++", "cl")
_NAMES = {"linux": "libmoembed_native.so", "darwin": "libmoembed_native.dylib", "windows": "moembed_native.dll"}
_SYSTEMS = {"manylinux": "linux", "musllinux": "linux", "linux": "linux", "macosx": "darwin", "win": "windows"}
_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
_SANITIZE = [
    "-g",
    "-O1",
    "-fsanitize=address,undefined,float-cast-overflow",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
]


class BuildError(Exception):
    """The library cannot be compiled; the message says why."""


@dataclass(frozen=True)
class Target:
    """Platform that the library runs on.

    Attributes:
        system: `linux`, `darwin` or `windows`.
        machine: `x86_64`, `aarch64`, or another one, for which only the portable sources are compiled.
    """

    system: str
    machine: str

    @classmethod
    def of(cls, tag: str | None = None) -> "Target":
        """Return the target of a wheel's platform tag such as `manylinux_2_17_aarch64`; None stands for this machine."""
        tag = (tag or sysconfig.get_platform()).lower().replace("-", "_").replace(".", "_")
        system = next((name for start, name in _SYSTEMS.items() if tag.startswith(start)), "linux")
        found = [name for end, name in _MACHINES.items() if tag.endswith(end)]
        return cls(system, found[0] if found else platform.machine().lower())

    @property
    def library(self) -> str:
        """File name of the library."""
        return _NAMES[self.system]


def find_compiler() -> list[str]:
    """Return the command of a C++ compiler: `CXX`, or the first usual name on the path.

    Raises:
        BuildError: no compiler was found.
    """
    if command := os.environ.get("CXX"):
        return shlex.split(command, posix=os.name != "nt")
    for name in _COMPILERS:
        if shutil.which(name):
            return [name]
    raise BuildError(f"no C++ compiler found (tried CXX and {', '.join(_COMPILERS)})")


def build(folder: Path, target: Target | None = None, *, sanitize: bool = False) -> Path:
    """Compile and link the library.

    Args:
        folder: where to put it.
        target: its platform, which the compiler must support; None for this machine.
        sanitize: detect invalid addresses and undefined behaviour at run time (gcc and clang only).

    Returns:
        The library's path.

    Raises:
        BuildError: there is no compiler, or it fails.
    """
    target = target or Target.of()
    toolchain = _toolchain(target, _SANITIZE if sanitize else [])
    sources = list(sources_of(toolchain.recipe, target.machine))
    return _build(sources, folder / target.library, toolchain.compile, toolchain.link)


def build_program(
    main: Path, out: Path, target: Target | None = None, flags: Sequence[str] = (), *, only: Collection[str] = ()
) -> Path:
    """Compile and link a program that calls the kernels directly, with the library's own flags (gcc and clang only).

    Args:
        main: the source with its `main`.
        out: where to put the program.
        target: its platform, which the compiler must support; None for this machine.
        flags: further flags of the compiler and linker.
        only: names of the sources that the program needs, without suffix; empty for all kernels.

    Returns:
        `out`.

    Raises:
        BuildError: there is no compiler, or it fails.
    """
    target = target or Target.of()
    toolchain = _toolchain(target, flags)
    kernels = [found for found in sources_of(toolchain.recipe, target.machine) if found[0].parent.name == "kernels"]
    kernels = [found for found in kernels if not only or found[0].stem in only]
    return _build([(main, {}), *kernels], out, toolchain.compile, toolchain.link_program)


def _toolchain(target: Target, extra: Sequence[str]) -> "_Gnu":
    compiler = find_compiler()
    recipe = tomllib.loads((NATIVE / "sources.toml").read_text("utf-8"))
    kind = _Msvc if Path(compiler[0]).stem.lower() == "cl" else _Gnu
    return kind(compiler, recipe, target, [*extra])


def _build(
    sources: Sequence[tuple[Path, dict[str, Any]]],
    out: Path,
    compile_: Callable[[Path, Path, dict[str, Any]], list[str]],
    link: Callable[[list[str], Path], list[str]],
) -> Path:
    partial = out.with_name(out.name + ".partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        jobs = [(source, Path(scratch) / f"{number}.o", group) for number, (source, group) in enumerate(sources)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda job: _run(compile_(*job)), jobs))
        linked = Path(scratch) / out.name
        _run(link([str(object_) for _, object_, _ in jobs], linked))
        shutil.copy(linked, partial)
    partial.replace(out)  # atomic: a process may have the old file open
    return out


@dataclass(frozen=True)
class _Gnu:
    """Command lines of g++, clang++ and zig's clang."""

    compiler: list[str]
    recipe: dict[str, Any]
    target: Target
    extra: list[str]

    def compile(self, source: Path, object_: Path, group: dict[str, Any]) -> list[str]:
        common = self.recipe["compile"]
        flags = [*common["gnu"], *common["system"][self.target.system], *group.get("gnu", []), *self.extra]
        return [*self.compiler, *flags, "-c", str(source), "-o", str(object_)]

    def link(self, objects: list[str], out: Path) -> list[str]:
        flags = [flag.format(native=NATIVE) for flag in self.recipe["link"][self.target.system]]
        return [*self.compiler, *objects, *([*self.extra, "-shared"] if self.extra else flags), "-o", str(out)]

    def link_program(self, objects: list[str], out: Path) -> list[str]:
        return [*self.compiler, *self.extra, *objects, "-pthread", "-o", str(out)]


class _Msvc(_Gnu):
    """Command lines of cl."""

    def compile(self, source: Path, object_: Path, group: dict[str, Any]) -> list[str]:
        flags = [*self.recipe["compile"]["msvc"], *group.get("msvc", [])]
        return [*self.compiler, "/nologo", "/c", *flags, str(source), f"/Fo{object_}"]

    def link(self, objects: list[str], out: Path) -> list[str]:
        return [*self.compiler, "/nologo", "/LD", *objects, f"/Fe{out}"]


def sources_of(recipe: dict[str, Any], machine: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield every source for a machine, with its group in the recipe, the content of sources.toml."""
    for group in recipe["sources"]:
        if group.get("machine", machine) == machine:
            for pattern in group["files"]:
                yield from ((source, group) for source in sorted(NATIVE.glob(pattern)))


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise BuildError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode:
        raise BuildError(f"{shlex.join(command)}\nfailed:\n{done.stdout}{done.stderr}".rstrip())


def main() -> int:
    """Compile the library from the command line, by default beside the loader."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path, nargs="?", default=NATIVE)
    arguments.add_argument("--sanitize", action="store_true", help="with -fsanitize=address,undefined")
    options = arguments.parse_args()
    try:
        print(build(options.folder, sanitize=options.sanitize))
    except BuildError as error:
        sys.exit(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
