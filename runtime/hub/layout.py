"""Paths of huggingface_hub's cache. Importing this is fast, since opening any bundle does."""

from pathlib import Path


def is_snapshot(folder: Path) -> bool:
    """Check whether a folder is a snapshot in the hub's cache, which other programs share."""
    real = folder.resolve()
    return real.parent.name == "snapshots" and (real.parent.parent / "blobs").is_dir()


def repository(cache: Path, repo: str) -> Path:
    """Return the folder of a repository in a cache; it may not exist."""
    return cache / f"models--{repo.replace('/', '--')}"


def snapshot(cache: Path, repo: str, commit: str) -> Path:
    """Return the folder of a commit in a cache; it may not exist."""
    return repository(cache, repo) / "snapshots" / commit
