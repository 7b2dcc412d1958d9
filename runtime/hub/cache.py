"""Files of hub repositories that are on this machine: huggingface_hub's cache, and those of other programs.

Nothing is written here, so that a cache may be read-only. A cache that was copied by hand is read as far as it is whole: without
`refs`, with copies in place of links, with links that lead nowhere.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from moembed.files.untrusted import feed
from moembed.hub.layout import repository, snapshot
from moembed.hub.names import is_commit

_SHA256 = re.compile(r"[0-9a-f]{64}")


def commit_of(cache: Path, repo: str, revision: str | None) -> str | None:
    """Return the commit that a revision had when it was cached; None if that is unknown.

    Without any record of branches, as in a cache that was copied by hand, it is the only snapshot's.
    """
    if revision is not None and is_commit(revision):
        return revision
    base = repository(cache, repo)
    try:
        commit = (base / "refs" / (revision or "main")).read_text("utf-8").strip()
    except (OSError, ValueError):
        commit = ""
    if is_commit(commit):
        return commit
    if revision is not None or _entries(base / "refs"):
        return None
    snapshots = [path.name for path in _entries(base / "snapshots") if is_commit(path.name)]
    return snapshots[0] if len(snapshots) == 1 else None


def cached(cache: Path, repo: str, commit: str, name: str) -> Path | None:
    """Return a file of a snapshot; None if it is not there, or is a link that leads nowhere."""
    path = snapshot(cache, repo, commit) / name
    return path if path.is_file() else None


def is_intact(path: Path) -> bool:
    """Check whether a blob has the digest that it is named by; True for a file that has another kind of name."""
    name = Path(os.path.realpath(path)).name
    return _SHA256.fullmatch(name) is None or _has_digest(path, name)


def is_known_absent(cache: Path, repo: str, commit: str, name: str) -> bool:
    """Check whether the cache remembers that a commit does not hold a file."""
    return (repository(cache, repo) / ".no_exist" / commit / name).is_file()


def find_by_digest(
    repo: str, name: str, sha256: str, folders: Iterable[Path], *, first: Path | None = None
) -> Path | None:
    """Find a file of a repository by its content, in any snapshot of any revision.

    Args:
        repo: `owner/name`.
        name: path in the repository.
        sha256: digest of the file.
        folders: caches, as `moembed.hub.access.cache_folders` returns them.
        first: a path to try before them.

    Returns:
        A file with that digest, which was just computed; None if there is none.
    """
    seen = set()
    for path in (*([first] if first else []), *_candidates(repo, name, sha256, folders)):
        real = Path(os.path.realpath(path))
        if real in seen or not real.is_file():
            continue
        seen.add(real)
        # The name of a blob is its digest: one that has another does not have to be read.
        if _SHA256.fullmatch(real.name) and real.name != sha256:
            continue
        if _has_digest(real, sha256):
            return path
    return None


def _candidates(repo: str, name: str, sha256: str, folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        base = repository(folder, repo)
        yield base / "blobs" / sha256
        for commit in _entries(base / "snapshots"):
            yield commit / name
        yield folder / repo.replace("/", "_") / name  # of older releases of sentence-transformers


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _has_digest(path: Path, sha256: str) -> bool:
    digest = hashlib.sha256()
    try:
        feed(path, digest.update)
    except OSError:
        return False
    return digest.hexdigest() == sha256
