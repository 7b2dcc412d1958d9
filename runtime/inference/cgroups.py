"""CPU and memory limits of this process by Linux control groups, version 1 and 2."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ESCAPED = re.compile(r"\\([0-7]{3})")  # in mountinfo, of spaces among others
_CPU, _MEMORY = "cpu", "memory"
_UNLIMITED = 1 << 60  # version 1 has no word for it, but the largest number of pages
_USAGE = {1: "memory.usage_in_bytes", 2: "memory.current"}
_LIMIT = {1: "memory.limit_in_bytes", 2: "memory.max"}
_PAGE_CACHE = {1: "total_inactive_file", 2: "inactive_file"}


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the number of CPUs whose time this process may use, such as 1.5; None without a limit.

    This is the minimum over the group of the process and all its parents. The parents of a container's root are not visible
    inside the container.

    Args:
        root: folder of `/proc` and the mounts, for tests.
    """
    quotas = (_quota(folder, version) for version, folder in _limiting_folders(root, _CPU))
    return min((quota for quota in quotas if quota is not None), default=None)


def available_memory(root: Path = Path("/")) -> tuple[int, int] | None:
    """Return how many bytes of memory this process may still take by its groups, and the limit of the narrowest one.

    The page cache of files that can be read again counts as available. None without a limit.

    Args:
        root: folder of `/proc` and the mounts, for tests.
    """
    found = (_available(folder, version) for version, folder in _limiting_folders(root, _MEMORY))
    return min((available for available in found if available is not None), default=None)


def _limiting_folders(root: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """Yield version and folder of each group that limits what a controller counts for this process."""
    try:
        own = _own_groups(root, controller)
        mounts = list(_mounts(root, controller))
    except (OSError, ValueError):
        return
    for version, group in own.items():
        for folder in _folders(group, [(top, place) for found, top, place in mounts if found == version]):
            yield version, root / folder.relative_to("/")


def _own_groups(root: Path, controller: str) -> dict[int, PurePosixPath]:
    """Return this process's group of a controller, by version."""
    own = {}
    for line in (root / "proc/self/cgroup").read_text("utf-8", "surrogateescape").splitlines():
        number, controllers, group = line.split(":", 2)
        if number == "0" and not controllers:
            own[2] = PurePosixPath(group)
        elif controller in controllers.split(","):
            own[1] = PurePosixPath(group)
    return own


def _mounts(root: Path, controller: str) -> Iterator[tuple[int, PurePosixPath, PurePosixPath]]:
    """Yield version, group and mount point of each mounted group of a controller."""
    for line in (root / "proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines():
        mount, _, system = line.partition(" - ")
        top, place = (_ESCAPED.sub(lambda code: chr(int(code[1], 8)), path) for path in mount.split(" ")[3:5])
        kind, _, options = system.split(" ", 2)
        if kind == "cgroup2":
            yield 2, PurePosixPath(top), PurePosixPath(place)
        elif kind == "cgroup" and controller in options.split(","):
            yield 1, PurePosixPath(top), PurePosixPath(place)


def _folders(group: PurePosixPath, mounts: list[tuple[PurePosixPath, PurePosixPath]]) -> Iterator[PurePosixPath]:
    """Yield the mounted folders of a group and its parents."""
    for top, place in mounts:
        if group.is_relative_to(top) and ".." not in group.parts:
            folder = place / group.relative_to(top)
            yield from (folder, *(above for above in folder.parents if above.is_relative_to(place)))
            return
    if mounts:  # in a container, group names can differ from those outside: the mounted group is that of the container
        yield mounts[0][1]


def _quota(folder: Path, version: int) -> float | None:
    try:
        if version == 2:
            quota, period = (folder / "cpu.max").read_text("ascii").split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text("ascii").strip() for name in ("quota", "period"))
        return None if quota == "max" or int(quota) <= 0 else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _available(folder: Path, version: int) -> tuple[int, int] | None:
    try:
        limit = (folder / _LIMIT[version]).read_text("ascii").strip()
        if limit == "max" or int(limit) >= _UNLIMITED:
            return None
        used = int((folder / _USAGE[version]).read_text("ascii"))
        counts = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
        return int(limit) - used + int(counts[_PAGE_CACHE[version]]), int(limit)
    except (OSError, ValueError, KeyError):
        return None
