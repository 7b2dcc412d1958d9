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
        command = [*build.find_compiler(), *map(str, settings)]
        version = subprocess.run([command[0], "--version"], capture_output=True, check=False).stdout
        sources = sorted([main, *main.parent.glob("*.h"), *NATIVE.rglob("*.*")])
        content = [path.read_bytes() for path in sources if path.suffix in (".cpp", ".h", ".py", ".toml")]
        return kept(
            f"{main.stem}-{hashlib.sha256(repr(command).encode()).hexdigest()[:16]}",
            [version, content],
            lambda: build.build_program(main, out, flags=flags, **options),
            Path(out),
        )
    except build.BuildError as error:
        if "no C++ compiler" in str(error):
            pytest.skip(str(error))
        raise


def compile_for_aarch64(monkeypatch):
    """Let programs be compiled for aarch64 and run by `qemu-aarch64`; the test is skipped without both."""
    if importlib.util.find_spec("ziglang") is None or not shutil.which("qemu-aarch64"):
        pytest.skip("needs ziglang and qemu-user: pip install ziglang; apt-get install qemu-user")
    monkeypatch.setenv("CXX", f"{sys.executable} -m ziglang c++ -target aarch64-linux-musl")
