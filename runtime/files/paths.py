"""Per-user cache folder, and atomic replacement of files and folders.

Nothing here imports tempfile or shutil at the top: that takes longer than opening a bundle, which usually writes nothing.
"""

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from moembed.errors import MoembedError, OutputError

_LAST = "moembed.json"  # the manifest of a bundle, which is complete when this is there


def cache_folder() -> Path | None:
    """Return the user's cache folder: `$MOEMBED_CACHE`, else the platform's default. It may not exist yet.

    None if the user has no home folder: callers then work without a cache.
    """
    try:
        if own := os.environ.get("MOEMBED_CACHE"):
            return Path(own).expanduser()
        if sys.platform == "win32":
            return Path(os.environ.get("LOCALAPPDATA") or home_folder() / "AppData" / "Local") / "moembed"
        if sys.platform == "darwin":
            return home_folder() / "Library" / "Caches" / "moembed"
        return (xdg_folder("XDG_CACHE_HOME") or home_folder() / ".cache") / "moembed"
    except RuntimeError:
        return None


def home_folder() -> Path:
    """Return the user's home folder.

    Raises:
        RuntimeError: there is none, or the variable HOME is empty or relative.
    """
    home = Path.home()
    if not home.is_absolute() or not os.environ.get("HOME", "x"):
        raise RuntimeError("no home folder")
    return home


def xdg_folder(variable: str) -> Path | None:
    """Return the folder that an XDG variable names; None if it is not set or relative, which the specification ignores."""
    folder = Path(os.environ.get(variable, ""))
    return folder if folder.is_absolute() else None


def cache_file(*parts: str) -> Path | None:
    """Return a path inside the cache folder; None if there is no cache folder."""
    folder = cache_folder()
    return folder.joinpath(*parts) if folder else None


def readable(path: Path) -> str:
    """Convert a path to printable text that is valid in JSON: escape bytes that are not UTF-8, and control characters."""
    from unicodedata import category

    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c.encode("unicode_escape").decode() if category(c) in ("Cc", "Zl", "Zp") else c for c in text)


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to. On success the new file replaces `path`; on failure it is removed.

    The new file gets the mode of the old one and, if possible, its owner, group and extended attributes. A symbolic link is
    replaced itself, not its target; `moembed.files.destination` is for paths that users name.

    Raises:
        OutputError: the folder is missing or not writable, `path` is read-only or not a file, or the rename failed.
    """
    with _staging(path) as staging:
        before = _file_at(path)
        partial = staging / "new"
        yield partial
        if before:
            _copy_ownership(path, before, partial)
        partial.replace(path)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder to fill. On success it becomes `path`; on failure it is removed.

    A mount point cannot be renamed: there the entries take the places of the old ones, one after the other, the manifest of a
    bundle last. An existing folder at `path`, or the target of a symbolic link there, is replaced, and the new one gets its
    mode as a file does. The caller checks that it may be replaced.

    Raises:
        OutputError: the parent is missing or not writable, or the rename failed.
    """
    path = Path(os.path.realpath(path))
    if os.path.ismount(path):
        with _filling_mount(path) as partial:
            yield partial
        return
    with _staging(path, parents=True) as staging:
        partial, old = staging / "new", staging / "old" / path.name
        partial.mkdir()
        yield partial
        if path.exists():
            _copy_ownership(path, path.stat(), partial)
            old.parent.mkdir()
            path.rename(old)
        try:
            partial.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise


@contextmanager
def _filling_mount(path: Path) -> Iterator[Path]:
    """Yield a new folder on the file system that is mounted at a path; on success its entries replace those of the path."""
    with _staging(path / "new") as staging:
        partial, old = staging / "new", staging / "before"
        partial.mkdir()
        yield partial
        old.mkdir()
        # Without its manifest, nobody takes an old bundle for a whole one while it is exchanged.
        for entry in sorted(path.iterdir(), key=lambda entry: entry.name != _LAST):
            if is_content(entry):
                entry.rename(old / entry.name)
        for entry in sorted(partial.iterdir(), key=lambda entry: (entry.name == _LAST, entry.name)):
            entry.rename(path / entry.name)


def is_content(entry: Path) -> bool:
    """Check whether an entry of a folder is more than what every ext4 file system has, or a temporary folder of moembed."""
    return entry.name != "lost+found" and not entry.name.startswith(".moembed-")


@contextmanager
def _staging(path: Path, *, parents: bool = False) -> Iterator[Path]:
    """Yield a staging folder next to `path`; OSErrors become OutputErrors."""
    from moembed.files.staging import staging_folder

    with ExitStack() as stack:
        try:
            if parents:
                path.parent.mkdir(parents=True, exist_ok=True)
            staging = stack.enter_context(staging_folder(path.parent))
        except OSError as error:
            raise unwritable(path, error, "; choose a folder that exists and is writable") from error
        try:
            yield staging
        except MoembedError:
            raise
        except OSError as error:
            raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError, remedy: str = "") -> OutputError:
    """Return the error of a path that cannot be written."""
    length = f" ({len(path.name)} characters)" if error.errno == errno.ENAMETOOLONG else ""
    return OutputError(f"cannot write {path}: {error.strerror or error}{length}{remedy}")


def _file_at(path: Path) -> os.stat_result | None:
    """Return the stat of the file at a path; None if there is nothing or a symbolic link.

    Raises:
        OutputError: something else is there, or the file is read-only.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(found.st_mode):
        return None
    if not stat.S_ISREG(found.st_mode):
        what = "a folder" if stat.S_ISDIR(found.st_mode) else "not a regular file"
        raise OutputError(f"cannot write {path}: it is {what}; name a file")
    if not os.access(path, os.W_OK):
        raise OutputError(f"cannot write {path}: it is read-only; name another file, or make it writable")
    return found


def _copy_ownership(path: Path, before: os.stat_result, partial: Path) -> None:
    """Copy owner, group, mode and extended attributes from the old file or folder to the new one."""
    if sys.platform != "win32":
        own = partial.stat()
        if (own.st_uid, own.st_gid) != (before.st_uid, before.st_gid):
            _best_effort(lambda: os.chown(partial, before.st_uid, before.st_gid))
    partial.chmod(stat.S_IMODE(before.st_mode))
    _best_effort(lambda: _copy_attributes(path, partial))


def _copy_attributes(path: Path, partial: Path) -> None:
    """Copy extended attributes, including access-control lists and security labels."""
    if sys.platform == "linux":
        for name in os.listxattr(path):
            os.setxattr(partial, name, os.getxattr(path, name))


def _best_effort(change: Callable[[], object]) -> None:
    try:
        change()
    except OSError:
        return  # not permitted, or not supported by the file system
