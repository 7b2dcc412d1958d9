"""Helpers that change bundles."""

import json
from pathlib import Path

from moembed.bundle.bundle import sha256_of
from moembed.bundle.manifest import MANIFEST_FILE


def edit(folder: Path, change) -> None:
    """Edit the JSON of a manifest in place."""
    path = folder / MANIFEST_FILE
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


def relist(folder: Path, name: str) -> None:
    """Update the manifest for a file that a test changed."""
    path = folder / name
    edit(folder, lambda raw: raw["files"].update({name: {"size": path.stat().st_size, "sha256": sha256_of(path)}}))


def change_bundle(folder: Path) -> None:
    """Turn the bundle in a folder into another valid one: add a newline at the end of its tokenizer.json."""
    path = folder / "tokenizer.json"
    path.write_bytes(path.read_bytes() + b"\n")
    relist(folder, path.name)
