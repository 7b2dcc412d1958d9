"""Kept bundles: `models/OWNER--NAME/REVISION-RECIPE-VERSION/` in the data folder.

REVISION are 16 hex digits of the commit, or of the weights' sha256 for a checkpoint folder. VERSION are 8 hex digits that change
when another version of moembed would make another bundle of the same checkpoint, so that both are kept beside each other.
`index.json` beside them has the model's name, and the revision that each requested one led to. `download-REVISION/` is an
unfinished download, and `lock` is described in `moembed.store.ownership`.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from moembed.bundle.bundle import read_manifest
from moembed.bundle.manifest import MANIFEST_FILE, Manifest
from moembed.errors import BundleError, OutputError
from moembed.files.paths import replacing_file
from moembed.files.staging import sweep
from moembed.files.untrusted import parse_object, read_bounded
from moembed.hub.names import is_commit
from moembed.store.ownership import LOCK_FILE, is_owned, status_of
from moembed.store.place import data_folder

INDEX_FILE = "index.json"
DOWNLOAD_PREFIX = "download-"
_MODELS = "models"
_REVISION_DIGITS = 16
_ENTRY = re.compile(r"(?P<revision>[0-9a-f]{16})-(?P<recipe>[a-z0-9-]+)-(?P<version>[0-9a-f]{8})")
_MAX_INDEX = 1 << 20  # bytes
# Files that moembed writes, for an entry whose manifest is gone.
_OURS = re.compile(r"onnx/model[^/]*|1_Pooling/config\.json|[a-z_]+\.json|vocabulary\.bin")


@dataclass(frozen=True)
class Entry:
    """Something in a model's folder.

    Attributes:
        model: name of the model, as it was requested.
        folder: path of the entry.
        revision: first digits of the commit, or of the weights' sha256.
        size: bytes on disk.
        recipe: recipe of a bundle; None for a download.
        version: version of a bundle; see the module.
        problem: why it cannot be opened; None for a bundle that can.
    """

    model: str
    folder: Path
    revision: str
    size: int
    recipe: str | None = None
    version: str | None = None
    problem: str | None = None


@dataclass
class Removal:
    """Result of a removal.

    Attributes:
        freed: bytes of the removed files.
        kept: what was left in place, and why.
    """

    freed: int = 0
    kept: list[str] = field(default_factory=list)


def model_folder(name: str) -> Path | None:
    """Return the folder of a model, by `owner/name` in any capitals; it may not exist. None without a data folder."""
    data = data_folder()
    return None if data is None else data / _MODELS / key_of(name)


def key_of(name: str) -> str:
    """Return the name of a model's folder."""
    return name.lower().replace("/", "--")


def entry_name(revision: str, recipe: str, version: str) -> str:
    """Return the name of a kept bundle's folder."""
    return f"{revision[:_REVISION_DIGITS]}-{recipe}-{version}"


def download_name(revision: str) -> str:
    """Return the name of an unfinished download's folder, by a commit, branch or tag."""
    digits = revision if is_commit(revision) else hashlib.sha256(revision.encode()).hexdigest()
    return DOWNLOAD_PREFIX + digits[:_REVISION_DIGITS]


def candidates(folder: Path, revision: str, default: str, version_of: Callable[[str], str]) -> list[Path]:
    """Return the kept bundles of a revision, best first: those of the default recipe and of the current version, then the newest.

    Args:
        folder: the model's folder.
        revision: the revision, of which the first digits count.
        default: recipe that comes before all others.
        version_of: returns the current version of a recipe.
    """
    found = []
    for path in _children(folder):
        parts = _ENTRY.fullmatch(path.name)
        if parts and parts["revision"] == revision[:_REVISION_DIGITS]:
            recipe, version = parts["recipe"], parts["version"]
            with suppress(OSError):
                found.append((recipe != default, version != version_of(recipe), -path.stat().st_mtime_ns, path))
    return [path for *_, path in sorted(found)]


def parts_of(folder: Path) -> tuple[str, str]:
    """Return recipe and version of a kept bundle, from its folder's name."""
    parts = _ENTRY.fullmatch(folder.name)
    return (parts["recipe"], parts["version"]) if parts else ("", "")


def indexed_revision(folder: Path, requested: str) -> str | None:
    """Return the revision that a requested one led to, as `index_revision` wrote it."""
    found = _index(folder).get("revisions")
    revision = found.get(requested) if isinstance(found, dict) else None
    return revision if isinstance(revision, str) else None


def index_revision(folder: Path, model: str, requested: str, revision: str) -> None:
    """Write down which revision a requested one led to.

    Raises:
        OutputError: the file cannot be written.
    """
    before = _index(folder).get("revisions")
    revisions = before if isinstance(before, dict) else {}
    with replacing_file(folder / INDEX_FILE) as partial:
        content = {"model": model, "revisions": revisions | {requested: revision}}
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


def entries() -> Iterator[Entry]:
    """Yield everything that is kept, unfinished downloads and conversions included, and sweep what dead processes left."""
    data = data_folder()
    if data is None:
        return
    for folder in _children(data / _MODELS):
        if folder.is_dir():
            yield from _entries_of(folder)


def sweep_downloads(folder: Path) -> None:
    """Remove the unfinished downloads of a model. The caller owns the folder."""
    for path in _children(folder):
        if path.name.startswith(DOWNLOAD_PREFIX):
            if path.is_symlink():
                path.unlink()
            else:
                shutil.rmtree(path, ignore_errors=True)


def folder_named(name: str) -> Path | None:
    """Return the folder of the model that `moembed models` lists under a name, such as the path of a folder that is gone."""
    data = data_folder()
    found = [] if data is None else _children(data / _MODELS)
    return next((folder for folder in found if _index(folder).get("model") == name), None)


def remove(name: str, folder: Path | None) -> Removal | None:
    """Remove everything that moembed keeps of a model; None if it keeps nothing. Links are removed, never followed.

    Args:
        name: the model, for errors.
        folder: its folder in the data folder, which may not exist; None for none.

    Raises:
        OutputError: a process is converting the model, or a file cannot be removed.
    """
    if folder is None or not os.path.lexists(folder):
        return None
    removal = Removal()
    with _removing():
        if folder.is_symlink():
            removal.kept.append(f"{folder.resolve()}, to which {folder} was a link")
            folder.unlink()
            return removal
        if is_owned(folder):
            status = status_of(folder)
            raise OutputError(
                f"{name} is being converted by {status.owner if status else 'another process'} ({folder / LOCK_FILE}): stop it, "
                "or wait until it is done"
            )
        sweep(folder)
        for path in _children(folder):
            _remove_entry(path, removal)
        removal.freed += _unlinked(folder / INDEX_FILE) + _unlinked(folder / LOCK_FILE)
        _drop_folder(folder, removal)
    return removal


def discard(folder: Path) -> None:
    """Remove a kept bundle that cannot be opened, if there is one. Files that moembed did not make move to `other-NAME`.

    Raises:
        OutputError: a file cannot be removed.
    """
    if not os.path.lexists(folder):
        return
    with _removing():
        if folder.is_symlink():
            folder.unlink()
            return
        _remove_bundle(folder, Removal())
        if folder.exists():
            folder.rename(folder.with_name(f"other-{secrets.token_hex(2)}-{folder.name}"))


def size_of(folder: Path) -> int:
    """Return the bytes of the files below a folder, without those behind links."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(root) / name).lstat().st_size
    return total


@contextmanager
def _removing() -> Iterator[None]:
    """Turn a failed removal into an error that says why."""
    try:
        yield
    except OutputError:
        raise
    except PermissionError as error:
        in_use = os.name == "nt"
        reason = "a running process uses it: stop that first" if in_use else f"{error.strerror}: ask its owner"
        raise OutputError(f"{error.filename} cannot be removed: {reason}") from error
    except OSError as error:
        raise OutputError(f"{error.filename} cannot be removed: {error.strerror}") from error


def _entries_of(folder: Path) -> Iterator[Entry]:
    sweep(folder)
    name = _index(folder).get("model")
    model = name if isinstance(name, str) else folder.name.replace("--", "/", 1)
    for path in _children(folder):
        if parts := _ENTRY.fullmatch(path.name):
            problem = None if path.exists() else f"it is a link to {os.path.realpath(path)}, which does not exist"
            try:
                read_manifest(path)
            except BundleError as error:
                problem = problem or str(error)
            yield Entry(model, path, parts["revision"], size_of(path), parts["recipe"], parts["version"], problem)
        elif path.name.startswith(DOWNLOAD_PREFIX):
            revision = path.name.removeprefix(DOWNLOAD_PREFIX)
            yield Entry(
                model, path, revision, size_of(path), problem="incomplete download; moembed pull goes on with it"
            )
        elif path.name.startswith(".moembed-"):
            status = status_of(folder)
            owner = f" by {status.owner}" if status else ""
            yield Entry(model, path, "", size_of(path), problem=f"conversion in progress{owner}")


def _remove_entry(path: Path, removal: Removal) -> None:
    """Remove a bundle or a download from a model's folder; other things stay."""
    if path.name in (INDEX_FILE, LOCK_FILE):
        return
    is_entry, is_download = _ENTRY.fullmatch(path.name), path.name.startswith(DOWNLOAD_PREFIX)
    if not is_entry and not is_download:
        removal.kept.append(f"{path}, which moembed did not make")
    elif path.is_symlink():
        removal.kept.append(f"{path.resolve()}, to which {path} was a link")
        path.unlink()
    elif is_download:
        removal.freed += size_of(path)
        shutil.rmtree(path)
    else:
        _remove_bundle(path, removal)


def _remove_bundle(folder: Path, removal: Removal) -> None:
    manifest = _manifest(folder)
    # First: without it nobody takes the rest for a bundle.
    removal.freed += _unlinked(folder / MANIFEST_FILE)
    for root, folders, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(root) / name
            relative = path.relative_to(folder).as_posix()
            if relative in manifest.files if manifest else _OURS.fullmatch(relative):
                removal.freed += _unlinked(path)
        for name in folders:
            with suppress(OSError):  # not empty, or a link
                (Path(root) / name).rmdir()
    _drop_folder(folder, removal)


def _drop_folder(folder: Path, removal: Removal) -> None:
    try:
        folder.rmdir()
    except OSError:
        left = ", ".join(sorted(path.name for path in _children(folder))[:5])
        removal.kept.append(f"{folder}, which has other files: {left}")


def _unlinked(path: Path) -> int:
    """Remove a file and return its bytes; 0 for a link, or if it is gone."""
    try:
        found = path.lstat()
        path.unlink()
    except FileNotFoundError:
        return 0
    return 0 if stat.S_ISLNK(found.st_mode) else found.st_size


def _manifest(folder: Path) -> Manifest | None:
    try:
        return read_manifest(folder)
    except BundleError:
        return None


def _index(folder: Path) -> dict[str, object]:
    try:
        return parse_object(read_bounded(folder / INDEX_FILE, _MAX_INDEX))
    except (OSError, ValueError):
        return {}


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
