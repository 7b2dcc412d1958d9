"""Environments of other tools: made by pip from the project's extras, and kept in pytest's cache between runs."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import onnxruntime
import pytest
from filelock import FileLock

from support.folders import ROOT

_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def requirements(extra: str) -> list[str]:
    """Return the requirements of an extra, with those of the extras that it includes."""
    found = []
    for requirement in _PROJECT["optional-dependencies"][extra]:
        included = re.fullmatch(r"moembed\[(.+)\]", requirement)
        if included:
            found += [inner for name in included[1].split(",") for inner in requirements(name)]
        else:
            found.append(requirement)
    return found


def environment(extra: str, cache: Path) -> Path:
    """Return the Python of an environment with an extra. Build the environment if it is not in the cache.

    ONNX Runtime is this environment's release, so that only the tool differs.
    """
    wanted = [*_PROJECT["dependencies"], *requirements(extra), f"onnxruntime=={onnxruntime.__version__}"]
    folder = cache / extra
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    record, content = folder / "requirements.json", json.dumps([sys.version, *wanted])
    with FileLock(cache / f"{extra}.lock"):
        if not record.exists() or record.read_text("utf-8") != content:
            venv.create(folder, clear=True, with_pip=True)
            _install(python, wanted)
            record.write_text(content, "utf-8")
    return python


def overlay(requirement: str, cache: Path) -> Path:
    """Return a folder for PYTHONPATH that holds another release of a package and of what it needs."""
    folder = cache / re.sub(r"[^\w.]+", "-", requirement)
    record, content = folder / "requirements.json", json.dumps([sys.version, requirement])
    with FileLock(cache / f"{folder.name}.lock"):
        if not record.exists() or record.read_text("utf-8") != content:
            shutil.rmtree(folder, ignore_errors=True)
            _install(Path(sys.executable), ["--target", str(folder), requirement])
            record.write_text(content, "utf-8")
    return folder


def _install(python: Path, wanted: list[str]) -> None:
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode and "connection broken by" in done.stderr:
        pytest.skip(f"pip has no network to install {', '.join(wanted)}: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
