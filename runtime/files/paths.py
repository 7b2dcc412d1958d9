"""Where moembed keeps what it may lose: the per-user cache folder, and safe replacing of files and folders.

tempfile and shutil take longer to import than a bundle takes to open, and opening one writes nothing on most starts.
"""

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from moembed.errors import MoembedError, OutputError


def cache_folder() -> Path | None:
    """The per-user cache: `$MOEMBED_CACHE`, else the platform's own place; it may not exist yet.

    None if the user has no home folder: whatever only saves time then does without.
    """
    try:
        if chosen := os.environ.get("MOEMBED_CACHE"):
            return Path(chosen).expanduser()
        if sys.platform == "win32":
            return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "moembed"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "moembed"
        chosen = os.environ.get("XDG_CACHE_HOME", "")
        # The XDG specification has relative paths ignored.
        return (Path(chosen) if Path(chosen).is_absolute() else Path.home() / ".cache") / "moembed"
    except RuntimeError:
        return None


def cache_file(*parts: str) -> Path | None:
    """A path below the cache folder, or None if there is none."""
    folder = cache_folder()
    return folder.joinpath(*parts) if folder else None


def readable(path: Path) -> str:
    """A path as text that can be printed and is valid in JSON: bytes that are not UTF-8, and control characters, escaped."""
    from unicodedata import category

    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c.encode("unicode_escape").decode() if category(c) in ("Cc", "Zl", "Zp") else c for c in text)


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; what was written replaces `path` on success, and is removed on any failure.

    A file that is replaced hands on its mode and, as far as allowed, its owner, group and extended attributes. A symbolic
    link is replaced itself; `moembed.files.destination` is for paths that users name.

    Raises:
        OutputError: the folder is missing or not writable, `path` is read-only or no file, or the rename failed.
    """
    with _beside(path) as aside:
        before = _file_at(path)
        partial = aside / "new"
        yield partial
        if before:
            _hand_on(path, before, partial)
        partial.replace(path)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder to fill; it becomes `path` on success, and is removed on any failure.

    An existing folder at `path`, or where a symbolic link there leads to, is replaced and hands on its mode as a file does;
    whether it may be replaced is the caller's decision.

    Raises:
        OutputError: the parent is missing or not writable, or the rename failed.
    """
    path = Path(os.path.realpath(path))
    with _beside(path, parents=True) as aside:
        partial, old = aside / "new", aside / "old" / path.name
        partial.mkdir()
        yield partial
        if path.exists():
            _hand_on(path, path.stat(), partial)
            old.parent.mkdir()
            path.rename(old)
        try:
            partial.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise


@contextmanager
def _beside(path: Path, *, parents: bool = False) -> Iterator[Path]:
    from moembed.files.staging import aside_folder

    with ExitStack() as stack:
        try:
            if parents:
                path.parent.mkdir(parents=True, exist_ok=True)
            aside = stack.enter_context(aside_folder(path.parent))
        except OSError as error:
            raise OutputError(
                f"cannot write {path}: {error.strerror}; choose a folder that exists and is writable"
            ) from error
        try:
            yield aside
        except MoembedError:
            raise
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def _file_at(path: Path) -> os.stat_result | None:
    """The stat of the file at a path, None if there is nothing or a symbolic link.

    Raises:
        OutputError: it must not be replaced.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(found.st_mode):
        return None
    if not stat.S_ISREG(found.st_mode):
        what = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
        raise OutputError(f"cannot write {path}: it is {what}; name a file")
    if not os.access(path, os.W_OK):
        raise OutputError(f"cannot write {path}: it is read-only; name another file, or make it writable")
    return found


def _hand_on(path: Path, before: os.stat_result, partial: Path) -> None:
    """Give what takes the place of `path` what belongs to the place, not to the content."""
    if sys.platform != "win32":
        own = partial.stat()
        if (own.st_uid, own.st_gid) != (before.st_uid, before.st_gid):
            _best_effort(lambda: os.chown(partial, before.st_uid, before.st_gid))
    partial.chmod(stat.S_IMODE(before.st_mode))
    _best_effort(lambda: _copy_attributes(path, partial))


def _copy_attributes(path: Path, partial: Path) -> None:
    """Copy extended attributes, among them access-control lists and labels."""
    if sys.platform == "linux":
        for name in os.listxattr(path):
            os.setxattr(partial, name, os.getxattr(path, name))


def _best_effort(change: Callable[[], object]) -> None:
    try:
        change()
    except OSError:
        return  # not ours to give, or not known to this file system
