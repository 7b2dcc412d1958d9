"""Comparison of what a download and a conversion need with what there is: disk per file system, and memory."""

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from moembed.errors import OutputError
from moembed.inference.cgroups import available_memory


def check_disk(needs: Mapping[Path, int], purpose: str) -> None:
    """Make sure that folders have room; those on one file system count together.

    Args:
        needs: bytes to write, by folder, which need not exist yet.
        purpose: beginning of the error's sentence.

    Raises:
        OutputError: a file system has too little room.
    """
    by_device: dict[int, tuple[Path, int]] = {}
    for folder, need in needs.items():
        there = _existing(folder)
        device = there.stat().st_dev
        first, total = by_device.get(device, (folder, 0))
        by_device[device] = first, total + need
    for folder, need in by_device.values():
        free = shutil.disk_usage(_existing(folder)).free
        if free < need:
            raise OutputError(
                f"{purpose} needs {in_words(need)} in {folder}, and its file system has {in_words(free)} free: make room, or "
                "set MOEMBED_DATA to a folder on another disk"
            )


def check_memory(need: int, purpose: str) -> None:
    """Make sure that there is memory: of the control group, which a container limits, and of the machine.

    Args:
        need: bytes.
        purpose: beginning of the error's sentence.

    Raises:
        OutputError: there is too little.
    """
    if (limited := available_memory()) is not None and limited[0] < need:
        raise OutputError(
            f"{purpose} needs {in_words(need)} of memory, and the control group of this process (a container, or a limit of "
            f"systemd) allows {in_words(limited[1])}, of which {in_words(max(limited[0], 0))} are left: raise the limit, or "
            "convert on another machine with moembed pull NAME -o FOLDER and copy the folder"
        )
    if (free := _machine_memory()) is not None and free < need:
        raise OutputError(
            f"{purpose} needs {in_words(need)} of memory, and this machine has {in_words(free)} available: stop other programs, "
            "or convert on another machine with moembed pull NAME -o FOLDER and copy the folder"
        )


def in_words(size: int) -> str:
    """Format a number of bytes: `480 MB`, `1.90 GB`."""
    for unit, digits in (("GB", 2), ("MB", 0), ("kB", 0)):
        scale = {"GB": 1e9, "MB": 1e6, "kB": 1e3}[unit]
        if size >= scale:
            return f"{size / scale:.{digits}f} {unit}"
    return f"{size} bytes"


def _machine_memory() -> int | None:
    """Return the bytes of memory that the machine has available, swap included; None if it does not say."""
    with suppress(OSError, ValueError, KeyError):
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        sizes = {name: int(value.split()[0]) * 1024 for name, _, value in (line.partition(":") for line in lines)}
        return sizes["MemAvailable"] + sizes["SwapFree"]
    return None


def _existing(folder: Path) -> Path:
    """Return the nearest folder that exists, links followed."""
    folder = Path(os.path.realpath(folder))
    return next(parent for parent in (folder, *folder.parents) if parent.exists())
