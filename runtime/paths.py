"""Where moembed keeps what it may lose: the per-user cache folder, and safe writing of files.

tempfile and shutil take longer to import than a bundle takes to open, and opening one writes nothing on most starts.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moembed.errors import OutputError


def cache_folder() -> Path:
    """The per-user cache: `$MOEMBED_CACHE`, else the platform's own place. It may not exist yet."""
    if chosen := os.environ.get("MOEMBED_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "moembed"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "moembed"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moembed"


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it over `path` on success, remove it on any failure.

    Raises:
        OutputError: the folder is missing or not writable, or the rename failed.
    """
    import tempfile

    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}; choose a folder that exists and is writable"
        ) from error
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o666 & ~_umask())
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; rename it to `path` on success, remove it on any failure.

    An existing folder at `path` is replaced; whether it may be is the caller's decision.

    Raises:
        OutputError: the parent is missing or not writable, or the rename failed.
    """
    import shutil
    import tempfile

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose a writable place") from error
    old = partial.with_name(partial.name + ".old")
    try:
        yield partial
        partial.chmod(0o777 & ~_umask())
        if path.exists():
            path.rename(old)
        try:
            partial.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    # The only portable way to read it is to set it; temporary files are private (0600), published ones should not be.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
