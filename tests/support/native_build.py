"""The program that compiles the native library, which installed packages do not contain."""

import hashlib
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.folders import ROOT
from support.kept import kept

NATIVE = ROOT / "runtime" / "native"
_spec = importlib.util.spec_from_file_location("moembed_native_build", NATIVE / "build.py")
build = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)


def compiled(main, out, *flags, **options):
    """Compile a program that calls the kernels, as `build.build_program`; the test is skipped without a compiler."""
    settings = [*flags, options.get("target"), *sorted(options.get("only", ()))]
    try:
        return kept_program(
            main.stem,
            [main, *main.parent.glob("*.h"), *NATIVE.rglob("*.*")],
            [*build.find_compiler(), *map(str, settings)],
            lambda: build.build_program(main, out, flags=flags, **options),
            Path(out),
        )
    except build.BuildError as error:
        if "no C++ compiler" in str(error):
            pytest.skip(str(error))
        raise


def kept_program(name, sources, command, make, out):
    """Copy a program to `out` that an earlier run compiled from equal sources by an equal command, or make it.

    Args:
        name: name of the program.
        sources: files that it may depend on.
        command: the compiler, whose version counts too, and all that steers it.
        make: compile to `out`.
        out: path of the program.
    """
    version = subprocess.run([command[0], "--version"], capture_output=True, check=False).stdout
    content = [path.read_bytes() for path in sorted(sources) if path.suffix in (".cpp", ".h", ".py", ".toml")]
    return kept(f"{name}-{hashlib.sha256(repr(command).encode()).hexdigest()[:16]}", [version, content], make, out)


def compile_for_aarch64(monkeypatch):
    """Let programs be compiled for aarch64 and run by `qemu-aarch64`; the test is skipped without both."""
    if importlib.util.find_spec("ziglang") is None or not shutil.which("qemu-aarch64"):
        pytest.skip("needs ziglang and qemu-user: pip install ziglang; apt-get install qemu-user")
    monkeypatch.setenv("CXX", f"{sys.executable} -m ziglang c++ -target aarch64-linux-musl")
