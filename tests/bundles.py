"""Bundles made from others."""

import json
from pathlib import Path

from moembed.bundle.bundle import sha256_of
from moembed.bundle.manifest import MANIFEST_FILE


def change_bundle(folder: Path) -> None:
    """Make another bundle of the one in a folder, as sound as before: its tokenizer.json ends in one more line."""
    path, manifest = folder / "tokenizer.json", json.loads((folder / MANIFEST_FILE).read_text("utf-8"))
    path.write_bytes(path.read_bytes() + b"\n")
    manifest["files"]["tokenizer.json"] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest), "utf-8")
