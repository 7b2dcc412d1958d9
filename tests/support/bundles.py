"""Bundles made from others."""

import json
from pathlib import Path

from moembed.bundle.bundle import sha256_of
from moembed.bundle.manifest import MANIFEST_FILE


def edit(folder: Path, change) -> None:
    """Change the manifest's JSON in place."""
    path = folder / MANIFEST_FILE
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


def relist(folder: Path, name: str) -> None:
    """Make the manifest agree with a file that a test changed."""
    path = folder / name
    edit(folder, lambda raw: raw["files"].update({name: {"size": path.stat().st_size, "sha256": sha256_of(path)}}))


def change_bundle(folder: Path) -> None:
    """Make another bundle of the one in a folder, as sound as before: its tokenizer.json ends in one more line."""
    path = folder / "tokenizer.json"
    path.write_bytes(path.read_bytes() + b"\n")
    relist(folder, path.name)
