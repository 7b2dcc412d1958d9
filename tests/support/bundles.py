"""Helpers that change bundles."""

import json
from pathlib import Path

import pytest

from moembed import Embedder
from moembed.bundle.bundle import Bundle, sha256_of
from moembed.bundle.manifest import MANIFEST_FILE
from moembed.errors import BundleError


def edit(folder: Path, change) -> None:
    """Edit the JSON of a manifest in place."""
    path = folder / MANIFEST_FILE
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


def relist(folder: Path, *names: str) -> None:
    """Make the manifest agree with files that a test changed."""
    records = {n: {"size": (folder / n).stat().st_size, "sha256": sha256_of(folder / n)} for n in names}
    edit(folder, lambda raw: raw["files"].update(records))


def open_error(folder: Path) -> str:
    """Open a bundle in every way; return the message of the `BundleError`."""
    with pytest.raises(BundleError) as caught:
        Embedder.from_pretrained(folder, threads=1).encode(["hello", "zebra ZZ 骆驼 0 9 quick"], prompt="")
    with pytest.raises(BundleError):
        Embedder(Bundle.open(folder, rehash=True), threads=1).encode("hello", prompt="")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1500
    return str(caught.value)


def change_bundle(folder: Path) -> None:
    """Turn the bundle in a folder into another valid one: add a newline at the end of its tokenizer.json."""
    path = folder / "tokenizer.json"
    path.write_bytes(path.read_bytes() + b"\n")
    relist(folder, path.name)
