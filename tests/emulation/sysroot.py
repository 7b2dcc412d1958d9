"""A folder with what an aarch64 Linux process needs to run moembed: Debian's C library and Python, and the wheels from PyPI.

    python tests/emulation/sysroot.py FOLDER

Takes Debian's `apt-get` and `dpkg-deb`, the machine's own package sources, and pip; about 200 MB, and no root: apt keeps its
state in the folder, and the machine's packages are not touched. The wheels have the versions installed here, so that only the
processor differs.
"""

import argparse
import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

DEBIAN = ("python3", "libstdc++6")
WHEELS = ("numpy", "onnxruntime", "tokenizers")
_PLATFORMS = [f"manylinux_2_{minor}_aarch64" for minor in (17, 27, 28)] + ["manylinux2014_aarch64"]


class SysrootError(Exception):
    """The folder cannot be made on this machine; the text says why."""


def default_folder() -> Path:
    """Where tests keep it: one folder per set of versions."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "moembed-tests" / "-".join(["aarch64", *(metadata.version(name) for name in WHEELS)])


def sysroot(folder: Path) -> Path:
    """The folder, made if it is not there; it appears complete or not at all.

    Raises:
        SysrootError: a tool is missing, or a package cannot be had.
    """
    if folder.exists():
        return folder
    if missing := [tool for tool in ("apt-get", "dpkg-deb") if not shutil.which(tool)]:
        raise SysrootError(f"{' and '.join(missing)} not found: the aarch64 system is made of Debian's packages")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _debian(partial)
        _wheels(partial)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def python(folder: Path) -> Path:
    """The Python of a sysroot, such as `usr/bin/python3.11`."""
    return next(path for path in sorted((folder / "usr" / "bin").glob("python3.*")) if path.name[8:].isdigit())


def _debian(folder: Path) -> None:
    apt = folder / "apt"
    (apt / "lists" / "partial").mkdir(parents=True)
    (apt / "archives" / "partial").mkdir(parents=True)
    (apt / "status").touch()
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Install-Recommends": "false",
        "Dir::State": apt,
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt,
    }
    command = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    _run("Debian's package lists", [*command, "update"])
    _run("Debian's packages", [*command, "install", "-y", "--download-only", *DEBIAN])
    for package in (apt / "archives").glob("*.deb"):
        _run(package.name, ["dpkg-deb", "-x", str(package), str(folder)])
    if not (folder / "lib").exists():  # newer packages have everything in usr/lib and leave the link to the installer
        (folder / "lib").symlink_to("usr/lib")
    shutil.rmtree(apt)


def _wheels(folder: Path) -> None:
    wanted = [f"{name}=={metadata.version(name)}" for name in WHEELS]
    platforms = [f"--platform={name}" for name in _PLATFORMS]
    target = ["--no-deps", "--only-binary=:all:", f"--python-version={python(folder).name[6:]}", *platforms]
    _run(
        "PyPI's wheels", [sys.executable, "-m", "pip", "-q", "download", *target, "-d", str(folder / "wheels"), *wanted]
    )
    for wheel in (folder / "wheels").glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder / "site")
    shutil.rmtree(folder / "wheels")


def _run(what: str, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise SysrootError(f"{what} for aarch64 cannot be had: {last}")


def main() -> None:
    """Make one from the command line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path, nargs="?", default=default_folder())
    try:
        print(sysroot(arguments.parse_args().folder))
    except SysrootError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
