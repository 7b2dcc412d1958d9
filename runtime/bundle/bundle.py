"""Opening a bundle folder: all listed files are present and unaltered, and there are no others.

Hashing gigabytes at every start would undo the benefit of memory mapping. So a file is hashed only once per machine and user,
as long as its identity (device, inode, size, times) stays the same; git's index does so too.
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
from moembed.files.untrusted import feed, lfs_advice, read_bounded, stat_regular

_MAX_MANIFEST_SIZE = 4 << 20  # bytes
_MAX_RECORDS = 64  # one is a few hundred bytes
_ALLOWED_STEMS = ("readme", "license", "licence", "notice")


@dataclass(frozen=True)
class Bundle:
    """Bundle folder whose files match its manifest.

    Attributes:
        folder: its path.
        manifest: content of `moembed.json`.
        hub: name and commit on the hub, for a bundle from there.
    """

    folder: Path
    manifest: Manifest
    hub: tuple[str, str] | None = None

    @classmethod
    def open(cls, folder: Path, *, rehash: bool = False, exclusive: bool = True) -> "Bundle":
        """Check a folder and read its manifest.

        Args:
            folder: the bundle.
            rehash: hash all files, even those that have not changed since they were hashed.
            exclusive: refuse a folder with files that the manifest does not list.

        Raises:
            BundleError: the folder is not a bundle, or a file is missing, altered or not listed.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        if exclusive:
            _refuse_unlisted(folder, manifest)
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
        """Path of the ONNX file."""
        return self.folder / self.manifest.graph

    @property
    def size(self) -> int:
        """Total bytes of the listed files."""
        return sum(record.size for record in self.manifest.files.values())

    @property
    def fingerprint(self) -> str:
        """Hex digest of everything that vectors depend on: graph, weights and tokenizer."""
        parts = sorted(
            (p, r.sha256) for p, r in self.manifest.files.items() if p.startswith("onnx/") or p == "tokenizer.json"
        )
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read `moembed.json` of a folder without checking the other files.

    Raises:
        BundleError: there is no such folder or manifest, or the manifest is invalid.
    """
    path = folder / MANIFEST_FILE
    try:
        return Manifest.from_json(read_bounded(path, _MAX_MANIFEST_SIZE).decode("utf-8"))
    except FileNotFoundError:
        hint = "no such folder" if not folder.exists() else f"it has no {MANIFEST_FILE}, so it is not a bundle"
        if (folder / "model.safetensors").exists():
            hint = f"it is a checkpoint, not a bundle: convert it with moembed export {folder} -o BUNDLE"
        raise BundleError(f"{folder}: {hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error


def sha256_of(path: Path) -> str:
    """Return the hex sha256 of a regular file.

    Raises:
        OSError: it cannot be read, or is not a regular file.
    """
    digest = hashlib.sha256()
    feed(path, digest.update)
    return digest.hexdigest()


def _refuse_unlisted(folder: Path, manifest: Manifest) -> None:
    listed = set(manifest.files) | {MANIFEST_FILE}
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        for name in names:
            path = (Path(root) / name).relative_to(folder).as_posix()
            if path not in listed and not name.startswith(".") and Path(name).stem.lower() not in _ALLOWED_STEMS:
                raise BundleError(
                    f"{folder} has the file {path}, which its manifest does not list: remove it, or export the bundle again"
                )


def _identity(path: Path, name: str, record: FileRecord) -> list[int]:
    try:
        stat = stat_regular(path)
    except FileNotFoundError:
        raise BundleError(
            f"{path.parent} lacks {name}, which its manifest lists: copy or export the bundle again"
        ) from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}; copy or export the bundle again") from error
    if stat.st_size != record.size:
        if advised := lfs_advice(path):
            raise BundleError(f"{path} has {stat.st_size} bytes, but {record.size} in the manifest{advised}")
        raise BundleError(
            f"{path} has {stat.st_size} bytes, but {record.size} in the manifest: "
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
            f"{name} in {path.parent} has the sha256 {found[:16]}…, but {record.sha256[:16]}… in the manifest: "
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
        _drop_old(path.parent)
    except (OSError, OutputError):
        return  # without a writable cache, the next start hashes again


def _drop_old(records: Path) -> None:
    """Keep only the newest records; a bundle without a record is hashed again when it is opened."""
    written = {}
    for path in records.glob("*.json"):
        with suppress(FileNotFoundError):  # removed by another process
            written[path] = path.stat().st_mtime_ns
    for path in sorted(written, key=lambda path: written[path])[:-_MAX_RECORDS]:
        path.unlink(missing_ok=True)
