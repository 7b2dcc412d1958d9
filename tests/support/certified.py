"""Tampering with certificates."""

import json
from pathlib import Path
from typing import Any

from moembed.bundle.manifest import MANIFEST_FILE


def edit(folder: Path, **changes: Any) -> None:
    """Change fields of a folder's certificate; dots lead into nested ones, written as two underscores."""
    path = folder / MANIFEST_FILE
    raw = json.loads(path.read_text())
    for name, value in changes.items():
        *parents, last = name.split("__")
        record = raw["certificate"]
        for parent in parents:
            record = record[parent]
        record[last] = value
    path.write_text(json.dumps(raw))
