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

NATIVE = Path(__file__).resolve().parent
_COMPILERS = ("c++", "g++", "clang++", "cl")
_NAMES = {"linux": "libmoembed_native.so", "darwin": "libmoembed_native.dylib", "windows": "moembed_native.dll"}
_SYSTEMS = {"manylinux": "linux", "musllinux": "linux", "linux": "linux", "macosx": "darwin", "win": "windows"}
_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
_SANITIZE = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]


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
    out = folder / target.library
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        jobs = list(_jobs(recipe, target))
        objects = [Path(scratch) / f"{number}.o" for number in range(len(jobs))]
        msvc = Path(compiler[0]).stem.lower() == "cl"
        extra = _SANITIZE if sanitize else []
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            commands = [
                [*compiler, "/nologo", "/c", *recipe["compile"]["msvc"], *flags["msvc"], str(source), f"/Fo{object_}"]
                if msvc
                else [*compiler, *recipe["compile"]["gnu"], *recipe["compile"]["system"][target.system], *flags["gnu"], *extra]
                + ["-c", str(source), "-o", str(object_)]
                for (source, flags), object_ in zip(jobs, objects, strict=True)
            ]
            list(pool.map(_run, commands))
        partial = Path(scratch) / target.library
        names = [str(name) for name in objects]
        if msvc:
            _run([*compiler, "/nologo", "/LD", *names, f"/Fe{partial}"])
        else:
            link = [] if sanitize else [flag.format(native=NATIVE) for flag in recipe["link"][target.system]]
            _run([*compiler, *extra, *(["-shared"] if sanitize else link), *names, "-o", str(partial)])
        shutil.copyfile(partial, out.with_suffix(".partial"))
        out.with_suffix(".partial").replace(out)  # whole or not at all: a process may have the old one open
    return out


def _jobs(recipe: dict, target: Target) -> Iterator[tuple[Path, dict[str, list[str]]]]:
    for group in recipe["sources"]:
        if group.get("machine", target.machine) == target.machine:
            for pattern in group["files"]:
                for source in sorted(NATIVE.glob(pattern)):
                    yield source, {"gnu": group.get("gnu", []), "msvc": group.get("msvc", [])}


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
        print(build(chosen.folder, sanitize=chosen.sanitize))  # noqa: T201
    except BuildError as error:
        sys.exit(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
