"""Files that take seconds to make, kept between runs for as long as all that decides them is equal."""

import contextlib
import functools
import hashlib
import shutil
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from support.folders import ROOT

# `pytest --cache-clear` empties it.
FOLDER = ROOT / ".pytest_cache" / "d" / "kept"


@functools.cache
def libraries() -> list[tuple[str, str]]:
    """Return the name and the version of every installed package, and those of Python."""
    return [("python", sys.version), *sorted((one.name, one.version) for one in metadata.distributions())]


def sources(*folders: str) -> list[bytes]:
    """Return the content of the Python sources in folders of the repository, but for training, on which no bundle depends."""
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path.read_bytes() for path in found if not path.is_relative_to(ROOT / "models" / "train")]


def kept(name: str, decided_by: object, make: Callable[[], object], out: Path) -> Path:
    """Copy a file to `out` that an earlier run made under equal conditions, or make it.

    Args:
        name: name of the file among all that are kept; one is kept of each name.
        decided_by: all that decides the content; its `repr` is compared.
        make: make the file at `out`.
        out: path of the file.
    """
    place = FOLDER / name
    state = hashlib.sha256(repr(decided_by).encode()).hexdigest()
    with contextlib.suppress(OSError):
        if (place / "state").read_text() == state:
            out.parent.mkdir(parents=True, exist_ok=True)
            return Path(shutil.copy2(place / "content", out))
    make()
    with contextlib.suppress(OSError):  # the folder cannot be written
        place.mkdir(parents=True, exist_ok=True)
        (place / "state").unlink(missing_ok=True)
        shutil.copy2(out, place / "content")
        (place / "state").write_text(state)
    return out
