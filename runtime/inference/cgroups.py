"""CPU time that Linux's control groups leave to this process, by version 1 or 2 of their files, or both."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ESCAPED = re.compile(r"\\([0-7]{3})")  # in mountinfo, of spaces among others
_CPU = "cpu"


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPUs' worth of time that this process may use, such as 1.5; None without a limit.

    The group of the process and all groups above it limit it; the least limit counts. Groups above the root of a container
    cannot be seen from inside.

    Args:
        root: where `/proc` and the mounts are looked for.
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
    """By version, the group that limits this process's CPU time."""
    own = {}
    for line in (root / "proc/self/cgroup").read_text("utf-8", "surrogateescape").splitlines():
        number, controllers, group = line.split(":", 2)
        if number == "0" and not controllers:
            own[2] = PurePosixPath(group)
        elif _CPU in controllers.split(","):
            own[1] = PurePosixPath(group)
    return own


def _mounts(root: Path) -> Iterator[tuple[int, PurePosixPath, PurePosixPath]]:
    """Version, group that is mounted, and where, of the mounted groups that limit CPU time."""
    for line in (root / "proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines():
        mount, _, system = line.partition(" - ")
        top, place = (_ESCAPED.sub(lambda code: chr(int(code[1], 8)), path) for path in mount.split(" ")[3:5])
        kind, _, options = system.split(" ", 2)
        if kind == "cgroup2":
            yield 2, PurePosixPath(top), PurePosixPath(place)
        elif kind == "cgroup" and _CPU in options.split(","):
            yield 1, PurePosixPath(top), PurePosixPath(place)


def _folders(group: PurePosixPath, mounts: list[tuple[PurePosixPath, PurePosixPath]]) -> Iterator[PurePosixPath]:
    """The folders of a group and of those above it, as far as they are mounted."""
    for top, place in mounts:
        if group.is_relative_to(top) and ".." not in group.parts:
            folder = place / group.relative_to(top)
            yield from (folder, *(above for above in folder.parents if above.is_relative_to(place)))
            return
    if mounts:  # in a container whose groups have other names inside than outside: what is mounted is its own
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
