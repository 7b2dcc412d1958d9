"""CPU limit of this process by Linux control groups, version 1 and 2."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ESCAPED = re.compile(r"\\([0-7]{3})")  # in mountinfo, of spaces among others
_CPU = "cpu"


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the number of CPUs whose time this process may use, such as 1.5; None without a limit.

    This is the minimum over the group of the process and all its parents. The parents of a container's root are not visible
    inside the container.

    Args:
        root: folder of `/proc` and the mounts, for tests.
    """
    try:
        own = _own_groups(root)
        mounts = list(_mounts(root))
    except (OSError, ValueError):
        return None
    quotas = []
    for version, group in own.items():
        for folder in _folders(group, [(top, place) for found, top, place in mounts if found == version]):
            quotas.append(_quota(root / folder.relative_to("/"), version))
    return min((quota for quota in quotas if quota is not None), default=None)


def _own_groups(root: Path) -> dict[int, PurePosixPath]:
    """Return the group that limits the CPU time of this process, by version."""
    own = {}
    for line in (root / "proc/self/cgroup").read_text("utf-8", "surrogateescape").splitlines():
        number, controllers, group = line.split(":", 2)
        if number == "0" and not controllers:
            own[2] = PurePosixPath(group)
        elif _CPU in controllers.split(","):
            own[1] = PurePosixPath(group)
    return own


def _mounts(root: Path) -> Iterator[tuple[int, PurePosixPath, PurePosixPath]]:
    """Yield version, group and mount point of each mounted group that limits CPU time."""
    for line in (root / "proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines():
        mount, _, system = line.partition(" - ")
        top, place = (_ESCAPED.sub(lambda code: chr(int(code[1], 8)), path) for path in mount.split(" ")[3:5])
        kind, _, options = system.split(" ", 2)
        if kind == "cgroup2":
            yield 2, PurePosixPath(top), PurePosixPath(place)
        elif kind == "cgroup" and _CPU in options.split(","):
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
