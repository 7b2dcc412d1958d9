"""Tampering with certificates."""

from pathlib import Path
from typing import Any

from support import bundles


def edit(folder: Path, **changes: Any) -> None:
    """Change fields of a folder's certificate; dots lead into nested ones, written as two underscores."""

    def change(raw: dict[str, Any]) -> None:
        for name, value in changes.items():
            *parents, last = name.split("__")
            record = raw["certificate"]
            for parent in parents:
                record = record[parent]
            record[last] = value

    bundles.edit(folder, change)
