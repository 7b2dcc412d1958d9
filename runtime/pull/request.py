"""`Request`: options of a pull."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Request:
    """Options of a pull.

    Attributes:
        recipe: name of the recipe; None for the default one.
        out: folder to write the bundle to, instead of keeping it in the data folder.
        keep: keep the downloaded checkpoint in the hub's cache.
        offline: do not use the network.
        cache_dir: the hub's cache; None for huggingface_hub's default.
        force: replace a bundle at `out`.
        refresh: ask the hub again where a branch or tag leads.
    """

    recipe: str | None = None
    out: Path | None = None
    keep: bool = False
    offline: bool = False
    cache_dir: Path | None = None
    force: bool = False
    refresh: bool = False

    @property
    def place(self) -> Path | None:
        """Folder on whose file system the output is written: its parent, or itself if a file system is mounted there."""
        if self.out is None:
            return None
        out = self.out.absolute()
        return out if os.path.ismount(out) else out.parent
