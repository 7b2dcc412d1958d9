"""Need and room: real small file systems, and control groups as the kernel shows them."""

import os
import subprocess
import sys

import pytest

from moembed.errors import OutputError
from moembed.inference.cgroups import available_memory
from moembed.store import room
from moembed.store.room import check_disk, check_memory, in_words

V1 = (
    "24 23 0:20 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n"
    "32 24 0:29 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n"
)
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
GB = 10**9


@pytest.fixture
def drives(tmp_path):
    """Two file systems of 10 MB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs root, to mount")
    folders = [tmp_path / "a", tmp_path / "b"]
    mounted = []
    for folder in folders:
        folder.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=10m", "none", folder]).returncode == 0:
            mounted.append(folder)
    if len(mounted) < 2:
        pytest.skip("mounting is not allowed here")
    yield folders
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True)


def test_each_file_system_counts_by_itself(drives):
    """N38, N28"""
    a, b = drives
    check_disk({a / "not" / "yet": 9 * 10**6, b: 9 * 10**6}, "Converting x")
    with pytest.raises(OutputError) as caught:
        check_disk({a / "one": 6 * 10**6, b: 1, a / "two": 6 * 10**6}, "Converting x")
    assert str(caught.value) == (
        f"Converting x needs 12 MB in {a}/one, and its file system has 10 MB free: make room, or set MOEMBED_DATA to a folder "
        "on another disk"
    )


def test_a_link_counts_where_it_leads(drives, tmp_path):
    (tmp_path / "link").symlink_to(drives[0])
    with pytest.raises(OutputError, match="needs 20 MB"):
        check_disk({tmp_path / "link" / "x": 20 * 10**6}, "Converting x")


def group(root, version, limit, used, cache, mountinfo=None, own=None):
    """Write what the kernel shows of one control group."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text(mountinfo or {1: V1, 2: V2}[version])
    (root / "proc/self/cgroup").write_text(own or {1: "3:memory:/job\n0::/job\n", 2: "0::/job\n"}[version])
    folder = root / "sys/fs/cgroup" / ("memory/job" if version == 1 else "job")
    folder.mkdir(parents=True)
    names = {1: ("limit_in_bytes", "usage_in_bytes", "total_inactive_file"), 2: ("max", "current", "inactive_file")}
    limit_name, used_name, cache_name = names[version]
    (folder / f"memory.{limit_name}").write_text(f"{limit}\n")
    (folder / f"memory.{used_name}").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{cache_name} {cache}\n")
    return root


@pytest.mark.parametrize("version", [1, 2])
def test_the_memory_of_a_control_group(tmp_path, version):
    """N41: the page cache of the mapped checkpoint is not in the way."""
    root = group(tmp_path, version, 2 * GB, int(1.8 * GB), int(1.5 * GB))
    assert available_memory(root) == (int(1.7 * GB), 2 * GB)


def test_the_narrowest_group_counts(tmp_path):
    root = group(tmp_path, 2, 4 * GB, GB, 0)
    above = root / "sys/fs/cgroup"
    for name in ("memory.max", "memory.current", "memory.stat"):
        (above / name).write_text((above / "job" / name).read_text())
    (above / "memory.max").write_text(f"{2 * GB}\n")
    assert available_memory(root) == (GB, 2 * GB)


@pytest.mark.parametrize(("version", "limit"), [(2, "max"), (1, 9223372036854771712)])
def test_a_group_without_a_limit(tmp_path, version, limit):
    assert available_memory(group(tmp_path, version, limit, GB, 0)) is None


def test_no_control_groups(tmp_path):
    assert available_memory(tmp_path) is None


def test_a_container_is_refused_before_the_work(monkeypatch):
    """N41: 2 GB on a large host."""
    monkeypatch.setattr(room, "available_memory", lambda: (1_100_000_000, 2 * GB))
    check_memory(GB, "Converting x")
    with pytest.raises(OutputError, match=r"needs 1\.50 GB .* control group .* allows 2\.00 GB, of which 1\.10 GB"):
        check_memory(int(1.5 * GB), "Converting x")


def test_a_machine_is_refused_before_the_work(monkeypatch):
    monkeypatch.setattr(room, "available_memory", lambda: None)
    with pytest.raises(OutputError, match=r"this machine has .* available: stop other programs"):
        check_memory(10**15, "Converting x")


@pytest.mark.parametrize(
    ("size", "words"), [(5, "5 bytes"), (1500, "2 kB"), (480_123_456, "480 MB"), (1_900_000_000, "1.90 GB")]
)
def test_sizes_in_words(size, words):
    assert in_words(size) == words
