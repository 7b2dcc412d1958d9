"""Compiles the native library with the C++ compiler that is there; sources.toml says from what and how.

    python runtime/native/build.py [FOLDER] [--sanitize]

`pip install` runs it through setup.py. `CXX` names the compiler, which may have arguments of its own.
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
from collections.abc import Iterator, Sequence
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
    """The library cannot be compiled here; the message says why."""


@dataclass(frozen=True)
class Target:
    """What the library is for.

    Attributes:
        system: `linux`, `darwin` or `windows`.
        machine: `x86_64`, `aarch64`, or another, for which only the portable sources are compiled.
    """

    system: str
    machine: str

    @classmethod
    def of(cls, tag: str | None = None) -> "Target":
        """The target of a wheel's platform tag such as `manylinux_2_17_aarch64`; of this machine if there is none."""
        tag = (tag or sysconfig.get_platform()).lower().replace("-", "_").replace(".", "_")
        system = next((name for start, name in _SYSTEMS.items() if tag.startswith(start)), "linux")
        found = [name for end, name in _MACHINES.items() if tag.endswith(end)]
        return cls(system, found[0] if found else platform.machine().lower())

    @property
    def library(self) -> str:
        """File name of the library."""
        return _NAMES[self.system]


def find_compiler() -> list[str]:
    """The command of a C++ compiler: `CXX`, or the first usual name that is on the path.

    Raises:
        BuildError: there is none.
    """
    if chosen := os.environ.get("CXX"):
        return shlex.split(chosen, posix=os.name != "nt")
    for name in _COMPILERS:
        if shutil.which(name):
            return [name]
    raise BuildError(f"no C++ compiler found (tried CXX and {', '.join(_COMPILERS)})")


def build(folder: Path, target: Target | None = None, *, sanitize: bool = False) -> Path:
    """Compile and link the library.

    Args:
        folder: where to put it.
        target: what for; None for this machine. The compiler has to be one for it.
        sanitize: check addresses and undefined behaviour while it runs (gcc and clang only).

    Returns:
        The library's path.

    Raises:
        BuildError: there is no compiler, or it fails.
    """
    target = target or Target.of()
    compiler = find_compiler()
    recipe = tomllib.loads((NATIVE / "sources.toml").read_text("utf-8"))
    make = _Msvc if Path(compiler[0]).stem.lower() == "cl" else _Gnu
    toolchain = make(compiler, recipe, target, _SANITIZE if sanitize else [])
    out = folder / target.library
    partial = out.with_name(out.name + ".partial")
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        jobs = [
            (source, Path(scratch) / f"{number}.o", group)
            for number, (source, group) in enumerate(_sources(recipe, target.machine))
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda job: _run(toolchain.compile(*job)), jobs))
        linked = Path(scratch) / target.library
        _run(toolchain.link([str(object_) for _, object_, _ in jobs], linked))
        shutil.copyfile(linked, partial)
    partial.replace(out)  # whole or not at all: a process may have the old one open
    return out


@dataclass(frozen=True)
class _Gnu:
    """How g++ and clang++ are called, and zig's clang."""

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


class _Msvc(_Gnu):
    """How cl is called."""

    def compile(self, source: Path, object_: Path, group: dict[str, Any]) -> list[str]:
        flags = [*self.recipe["compile"]["msvc"], *group.get("msvc", [])]
        return [*self.compiler, "/nologo", "/c", *flags, str(source), f"/Fo{object_}"]

    def link(self, objects: list[str], out: Path) -> list[str]:
        return [*self.compiler, "/nologo", "/LD", *objects, f"/Fe{out}"]


def _sources(recipe: dict[str, Any], machine: str) -> Iterator[tuple[Path, dict[str, Any]]]:
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
    """Compile from the command line, into the package folder if no other is named."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path, nargs="?", default=NATIVE.parent)
    arguments.add_argument("--sanitize", action="store_true", help="with -fsanitize=address,undefined")
    chosen = arguments.parse_args()
    try:
        print(build(chosen.folder, sanitize=chosen.sanitize))
    except BuildError as error:
        sys.exit(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
