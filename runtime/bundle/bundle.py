"""Opening a bundle folder: every listed file is there and unaltered, and nothing else is.

Hashing gigabytes at every start would undo the memory mapping, so a file whose identity (device, inode, size, times) is
the one that was hashed before, on this machine by this user, is not hashed again: git's index works the same way.
"""

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from moembed.bundle.graph_check import check_graph
from moembed.bundle.manifest import MANIFEST_FILE, FileRecord, Manifest
from moembed.errors import BundleError, OutputError
from moembed.files.paths import cache_file, replacing_file
from moembed.files.untrusted import feed, read_bounded, stat_regular

_MOST_MANIFEST = 4 << 20  # bytes
_MOST_RECORDS = 64  # one is a few hundred bytes
_TOLERATED = ("readme", "license", "licence", "notice")


@dataclass(frozen=True)
class Bundle:
    """A bundle folder whose files have been checked against its manifest.

    Attributes:
        folder: where it lies.
        manifest: what `moembed.json` says.
        hub: name and commit, of a bundle that came from the hub.
    """

    folder: Path
    manifest: Manifest
    hub: tuple[str, str] | None = None

    @classmethod
    def open(cls, folder: Path, *, rehash: bool = False, exclusive: bool = True) -> "Bundle":
        """Check a folder and read its manifest.

        Args:
            folder: the bundle.
            rehash: hash every file even if an unchanged one was hashed before.
            exclusive: refuse a folder with files that the manifest does not list.

        Raises:
            BundleError: the folder is not a bundle, or one of its files is missing, altered or not listed.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        if exclusive:
            _refuse_foreign(folder, manifest)
        stamps = {} if rehash else _read_stamps(folder)
        fresh: dict[str, list[int | str]] = {MANIFEST_FILE: [manifest.graph, manifest.hidden_size, manifest.max_tokens]}
        for path, record in manifest.files.items():
            identity = _identity(folder / path, path, record)
            if stamps.get(path) != [*identity, record.sha256]:
                _check_hash(folder / path, path, record)
            fresh[path] = [*identity, record.sha256]
        if fresh != stamps:
            check_graph(folder, manifest)
            _write_stamps(folder, fresh)
        return cls(folder, manifest)

    @property
    def graph(self) -> Path:
        """The ONNX file."""
        return self.folder / self.manifest.graph

    @property
    def size(self) -> int:
        """Bytes of all listed files."""
        return sum(record.size for record in self.manifest.files.values())

    @property
    def fingerprint(self) -> str:
        """Hex digest of everything that a vector depends on: graph, weights and tokenizer."""
        parts = sorted(
            (p, r.sha256) for p, r in self.manifest.files.items() if p.startswith("onnx/") or p == "tokenizer.json"
        )
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read `moembed.json` of a folder without checking the other files.

    Raises:
        BundleError: there is no such folder or manifest, or the manifest is not usable.
    """
    path = folder / MANIFEST_FILE
    try:
        return Manifest.from_json(read_bounded(path, _MOST_MANIFEST).decode("utf-8"))
    except FileNotFoundError:
        hint = "no such folder" if not folder.exists() else f"no {MANIFEST_FILE} in it, so it is not a bundle"
        if (folder / "model.safetensors").exists():
            hint = f"it is a checkpoint, not a bundle; make one: moembed export {folder} -o BUNDLE"
        raise BundleError(f"{folder}: {hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error


def sha256_of(path: Path) -> str:
    """Hex sha256 of a regular file's content.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    digest = hashlib.sha256()
    feed(path, digest.update)
    return digest.hexdigest()


def _refuse_foreign(folder: Path, manifest: Manifest) -> None:
    listed = set(manifest.files) | {MANIFEST_FILE}
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        for name in names:
            path = (Path(root) / name).relative_to(folder).as_posix()
            if path not in listed and not name.startswith(".") and Path(name).stem.lower() not in _TOLERATED:
                raise BundleError(
                    f"{folder} holds {path}, which its manifest does not list: remove it, or export the bundle again"
                )


def _identity(path: Path, name: str, record: FileRecord) -> list[int]:
    try:
        stat = stat_regular(path)
    except FileNotFoundError:
        raise BundleError(
            f"{path.parent} lacks {name}, which the manifest lists: copy or export the bundle again"
        ) from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}; copy or export the bundle again") from error
    if stat.st_size != record.size:
        raise BundleError(
            f"{path} has {stat.st_size} bytes, the manifest says {record.size}: "
            "the file is truncated or altered; copy or export the bundle again"
        )
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _check_hash(path: Path, name: str, record: FileRecord) -> None:
    try:
        found = sha256_of(path)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    if found != record.sha256:
        raise BundleError(
            f"{name} in {path.parent} has sha256 {found[:16]}…, the manifest says {record.sha256[:16]}…: "
            "the file was altered; copy or export the bundle again"
        )


def _stamp_file(folder: Path) -> Path | None:
    key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
    return cache_file("checked", f"{key}.json")


def _read_stamps(folder: Path) -> dict[str, list[int | str]]:
    try:
        path = _stamp_file(folder)
        stamps = json.loads(path.read_text("utf-8")) if path else {}
    except (OSError, ValueError):
        return {}
    return stamps if isinstance(stamps, dict) else {}


def _write_stamps(folder: Path, stamps: dict[str, list[int | str]]) -> None:
    try:
        if (path := _stamp_file(folder)) is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(path) as partial:
            partial.write_text(json.dumps(stamps), "utf-8")
        _forget(path.parent)
    except (OSError, OutputError):
        return  # a read-only home only means that the next start hashes again


def _forget(records: Path) -> None:
    """Keep only the newest records; a bundle whose record was dropped is hashed again when it is opened."""
    written = {}
    for path in records.glob("*.json"):
        with suppress(FileNotFoundError):  # another process was faster
            written[path] = path.stat().st_mtime_ns
    for path in sorted(written, key=lambda path: written[path])[:-_MOST_RECORDS]:
        path.unlink(missing_ok=True)
