"""`compare.json`: what has been measured, written after every step."""

import json
import sys
import time
from pathlib import Path
from typing import Any


class State:
    """What has been measured, and the time that is left.

    Args:
        path: the file; what it has is kept.
        seconds: `save` ends the program when so many are over.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self._path, self._end = path, time.monotonic() + seconds
        self.values: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}

    def at(self, *keys: str) -> dict[str, Any]:
        """The dictionary under these keys, made if need be."""
        found = self.values
        for key in keys:
            found = found.setdefault(key, {})
        return found

    def save(self) -> None:
        """Write, and end the program if its time is over."""
        self._path.write_text(json.dumps(self.values, indent=1) + "\n", "utf-8")
        if time.monotonic() > self._end:
            print("Not all is measured: the same command goes on from here.", file=sys.stderr)
            sys.exit(3)
