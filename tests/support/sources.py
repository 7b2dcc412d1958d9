"""The package's Python modules as the repository holds them, however the package is installed."""

import tomllib
from pathlib import Path

from support.folders import ROOT


def modules() -> dict[str, Path]:
    """Return every module of the package, `moembed.train` included, with its file."""
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-dir"]
    found = {}
    # Outer folders first: models/train has an entry of its own.
    for package, folder in sorted(folders.items(), key=lambda item: len(item[1])):
        for path in (ROOT / folder).rglob("*.py"):
            if (path.parent / "__init__.py").exists():
                parts = [part for part in path.relative_to(ROOT / folder).with_suffix("").parts if part != "__init__"]
                found[path] = ".".join([package, *parts])
    return {name: path for path, name in found.items()}
