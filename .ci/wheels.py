"""Builds the wheels of all platforms on this machine, and checks what is in them.

    python .ci/wheels.py [--out dist] [PLATFORM ...]

zig, from PyPI, compiles for every one of them; it and what else is needed is installed into `.wheels/`, which is kept.
"""

import argparse
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / ".wheels"
_SHIPPED = {".py", ".typed", ".toml", ".json", ".bin", ".onnx", ".onnx_data", ".html", ".js", ".css", ".svg"}
_REQUIREMENTS = (
    "ziglang==0.17.1",
    "auditwheel==6.8.2",
    "build>=1.2",
    "setuptools>=77",
    "numpy>=1.26",
    "tokenizers>=0.21",
)
_SYMBOLS = re.compile(rb"(?:GLIBC|GLIBCXX|CXXABI)_[0-9.]+")
_GLIBC = (2, 17)
# Load commands of Mach-O.
_LOAD, _LOAD_WEAK, _BUILD_VERSION, _SIGNATURE = 0xC, 0x80000018, 0x32, 0x1D
_PORTABLE_DLLS = re.compile(rb"(?i)(kernel32|ntdll|api-ms-win-crt-[a-z0-9-]+|moembed_native)\.dll")


_IMPORT = """
import sys
import moembed, moembed.cli
from moembed.native.loader import native_library
from moembed.pull.opening import open_bundle
from moembed.tokenizer.tokenizer import Tokenizer
assert sys.argv[1] in moembed.__file__
loaded = native_library().functions is not None
tokenizer = Tokenizer(open_bundle(None), backend="native" if loaded else "tokenizers")
(ids,) = tokenizer.encode(["hello"])
print(loaded, bool(native_library().reason), len(ids))
"""


@dataclass(frozen=True)
class Platform:
    """A wheel's platform tag, zig's name of it, and how its library is known: its name, format and machine."""

    tag: str
    zig: str
    library: str
    machine: int


PLATFORMS = (
    Platform("manylinux_2_17_x86_64", "x86_64-linux-gnu.2.17", "libmoembed_native.so", 62),
    Platform("manylinux_2_17_aarch64", "aarch64-linux-gnu.2.17", "libmoembed_native.so", 183),
    Platform("macosx_11_0_arm64", "aarch64-macos.11.0", "libmoembed_native.dylib", 0x0100000C),
    Platform("macosx_11_0_x86_64", "x86_64-macos.11.0", "libmoembed_native.dylib", 0x01000007),
    Platform("win_amd64", "x86_64-windows-gnu", "moembed_native.dll", 0x8664),
)


def main() -> None:
    """Build and check, and stop at the first thing that is wrong."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tags = [platform.tag for platform in PLATFORMS]
    arguments.add_argument("platforms", nargs="*", metavar="PLATFORM", help=f"none for all: {', '.join(tags)}")
    arguments.add_argument("--out", type=Path, default=ROOT / "dist")
    chosen = arguments.parse_args()
    if unknown := set(chosen.platforms) - set(tags):
        arguments.error(f"unknown platforms: {', '.join(sorted(unknown))}")
    python = _tools()
    for platform in PLATFORMS:
        if not chosen.platforms or platform.tag in chosen.platforms:
            wheel = build(python, platform, chosen.out)
            check(python, platform, wheel)
            print(f"{wheel}: {wheel.stat().st_size / 1e6:.1f} MB, checked", flush=True)


def build(python: Path, platform: Platform, out: Path) -> Path:
    """Build one wheel from a tree without what earlier builds left."""
    for stale in (ROOT / "build", *ROOT.glob("*.egg-info")):
        shutil.rmtree(stale, ignore_errors=True)
    environment = os.environ | {
        "CXX": f"{python} -m ziglang c++ -target {platform.zig}",
        "MOEMBED_NATIVE": "require",
        "MOEMBED_PLATFORM": platform.tag,
    }
    command = [python, "-m", "build", "--wheel", "--no-isolation", "-q", "-o", out, ROOT]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = out.glob(f"moembed-*-py3-none-{platform.tag}.whl")
    return wheel


def check(python: Path, platform: Platform, wheel: Path) -> None:
    """Stop if a wheel does not hold exactly what it should."""
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        names = archive.namelist()
        metadata = Parser().parsestr(archive.read(next(n for n in names if n.endswith(".dist-info/WHEEL"))).decode())
        _need(metadata["Tag"] == f"py3-none-{platform.tag}", f"{wheel.name} has tag {metadata['Tag']}")
        _need(metadata["Root-Is-Purelib"] == "false", f"{wheel.name} says that it is pure")
        files = {name for name in names if Path(name).suffix in _SHIPPED}
        _need(files == _shipped(), f"{wheel.name} has other files than the tree: {sorted(files ^ _shipped())}")
        sources = [name for name in names if re.search(r"\.(cpp|h|o|map|partial)$|native/build", name)]
        _need(not sources, f"{wheel.name} has sources: {sources}")
        libraries = [name for name in names if re.search(r"\.(so|dylib|dll|pyd|a|lib)$", name)]
        _need(libraries == [f"moembed/native/{platform.library}"], f"{wheel.name} has libraries {libraries}")
        _check_library(platform, archive.read(libraries[0]))
        archive.extractall(folder)
        _check_import(python, platform, Path(folder))
    if platform.tag.startswith("manylinux"):
        done = subprocess.run([python, "-m", "auditwheel", "show", wheel], capture_output=True, text=True, check=True)
        said = " ".join(done.stdout.split())
        _need("manylinux_2_17_" in said or "manylinux_2_5_" in said or "manylinux_2_12_" in said, f"auditwheel: {said}")


def _shipped() -> set[str]:
    """Names in a wheel of all that the tree has for it."""
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-dir"]
    shipped: dict[Path, str] = {}
    # Outer folders first, as in setup.py: models/train has an entry of its own.
    for package, folder in sorted(folders.items(), key=lambda item: len(item[1])):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in _SHIPPED:
                shipped[path] = f"{package.replace('.', '/')}/{path.relative_to(ROOT / folder).as_posix()}"
    native = ROOT / "runtime" / "native"
    return {
        name
        for path, name in shipped.items()
        if native not in path.parents or path.name in ("__init__.py", "loader.py")
    }


def _check_library(platform: Platform, content: bytes) -> None:
    for name in (b"moembed_abi", b"moembed_tokenizer_encode"):
        _need(name in content, f"{platform.tag}: the library lacks {name.decode()}")
    if platform.library.endswith(".so"):
        found = content[:4] == b"\x7fELF" and struct.unpack_from("<H", content, 18)[0]
        newest = max(tuple(map(int, s.split(b"_")[1].split(b"."))) for s in _SYMBOLS.findall(content))
        _need(newest <= _GLIBC, f"{platform.tag}: the library needs glibc {newest}")
        _need(b"libstdc++" not in content, f"{platform.tag}: the library needs libstdc++")
    elif platform.library.endswith(".dylib"):
        found = content[:4] == b"\xcf\xfa\xed\xfe" and struct.unpack_from("<I", content, 4)[0]
        _check_macos(platform, content)
    else:
        found = (
            content[:2] == b"MZ" and struct.unpack_from("<H", content, struct.unpack_from("<I", content, 60)[0] + 4)[0]
        )
        needed = {n for n in re.findall(rb"(?i)[\w-]+\.dll", content) if not _PORTABLE_DLLS.fullmatch(n)}
        _need(not needed, f"{platform.tag}: the library needs {needed}")
    _need(found == platform.machine, f"{platform.tag}: the library is for machine {found}")


def _check_macos(platform: Platform, content: bytes) -> None:
    """What it loads, the oldest macOS it runs on, and the signature without which Apple's own processors run nothing."""
    offset, commands, needed = 32, {}, set()
    for _ in range(struct.unpack_from("<I", content, 16)[0]):
        command, size = struct.unpack_from("<II", content, offset)
        commands[command] = offset
        if command in (_LOAD, _LOAD_WEAK):
            name = struct.unpack_from("<I", content, offset + 8)[0]
            needed.add(content[offset + name : offset + size].rstrip(b"\0").decode())
        offset += size
    _need(needed == {"/usr/lib/libSystem.B.dylib"}, f"{platform.tag}: the library needs {needed}")
    oldest = struct.unpack_from("<I", content, commands[_BUILD_VERSION] + 12)[0] >> 16
    _need(oldest <= 11, f"{platform.tag}: the library needs macOS {oldest}")
    _need(_SIGNATURE in commands or not platform.tag.endswith("arm64"), f"{platform.tag}: the library is not signed")


def _check_import(python: Path, platform: Platform, folder: Path) -> None:
    """The package imports wherever its library loads, and where it does not it says why."""
    environment = os.environ | {"PYTHONPATH": str(folder), "MOEMBED_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [python, "-c", _IMPORT, folder], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    _need(done.returncode == 0, f"{platform.tag}: the package does not import: {done.stderr}")
    loaded, reason, tokens = done.stdout.split()
    here = (
        platform.tag.endswith(os.uname().machine) and platform.tag.startswith("manylinux") and sys.platform == "linux"
    )
    _need((loaded, reason) == (str(here), str(not here)), f"{platform.tag}: loaded {loaded}, reason {reason}")
    _need(int(tokens) > 2, f"{platform.tag}: no tokens")


def _tools() -> Path:
    python = TOOLS / "bin" / "python"
    if not python.exists():
        venv.create(TOOLS, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "-q", *_REQUIREMENTS], check=True)
    return python


def _need(fine: bool, otherwise: str) -> None:
    if not fine:
        sys.exit(otherwise)


if __name__ == "__main__":
    main()
