"""Control-group quotas as systemd, Docker and Kubernetes set them: in file trees and, if possible, for real."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from moembed.inference import cpu
from moembed.inference.cgroups import cpu_quota

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "24 23 0:20 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n"
    "32 24 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "33 24 0:30 / /sys/fs/cgroup/cpuset rw,nosuid shared:9 - cgroup cgroup rw,cpuset\n"
)
OTHERS = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n23 22 0:5 / /a\\040b rw - proc proc rw\n"
V1_GROUPS = "12:cpuset:/\n4:cpu,cpuacct:{}\n1:name=systemd:/user.slice\n0::/user.slice\n"


def tree(root: Path, mountinfo: str, group: str, quotas: dict[str, str]) -> Path:
    """A file system with what the kernel would show; quotas by folder: `cpu.max`, or quota and period of version 1."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text(OTHERS + mountinfo)
    (root / "proc/self/cgroup").write_text(group)
    for folder, value in quotas.items():
        place = root / "sys/fs/cgroup" / folder
        place.mkdir(parents=True, exist_ok=True)
        if "cpu,cpuacct" in folder or folder == "odd place":
            quota, period = value.split()
            (place / "cpu.cfs_quota_us").write_text(quota + "\n")
            (place / "cpu.cfs_period_us").write_text(period + "\n")
        else:
            (place / "cpu.max").write_text(value + "\n")
    return root


CASES = {
    "v2, a container of its own namespace": (V2, "0::/\n", {"": "150000 100000"}, 1.5),
    "v2, unlimited": (V2, "0::/user.slice\n", {"user.slice": "max 100000"}, None),
    "v2, systemd-run -p CPUQuota=100%": (
        V2, "0::/system.slice/run-u1.service\n",
        {"system.slice": "max 100000", "system.slice/run-u1.service": "100000 100000"}, 1,
    ),
    "v2, the slice above is narrower": (
        V2, "0::/a.slice/b.service\n", {"a.slice": "50000 100000", "a.slice/b.service": "400000 100000"}, 0.5
    ),
    "v2, a short period": (V2, "0::/a\n", {"a": "3000 1000"}, 3),
    "v2, a neighbour's quota is not ours": (V2, "0::/a\n", {"a": "max 100000", "b": "100000 100000"}, None),
    "v2, a name that begins alike": (V2, "0::/ab\n", {"a": "100000 100000", "ab": "max 100000"}, None),
    "v2, a container that shares the host's namespace": (
        V2.replace(" / /sys", " /docker/1f /sys"), "0::/docker/1f/inner\n",
        {"": "200000 100000", "inner": "max 100000"}, 2,
    ),
    "v2, a namespace that the process came into": (V2, "0::/../other\n", {"": "200000 100000"}, 2),
    "v1": (V1, V1_GROUPS.format("/a"), {"cpu,cpuacct/a": "200000 100000"}, 2),
    "v1, unlimited": (V1, V1_GROUPS.format("/a"), {"cpu,cpuacct/a": "-1 100000", "cpu,cpuacct": "-1 100000"}, None),
    "v1, the parent is narrower": (
        V1, V1_GROUPS.format("/kube/pod/c"),
        {"cpu,cpuacct/kube": "-1 100000", "cpu,cpuacct/kube/pod": "100000 100000", "cpu,cpuacct/kube/pod/c": "300000 100000"}, 1,
    ),
    "v1, Docker without a namespace of groups": (
        V1.replace("0:29 / ", "0:29 /docker/1f "), V1_GROUPS.format("/docker/1f"), {"cpu,cpuacct": "250000 100000"}, 2.5
    ),
    "v1, a group that is not below what is mounted": (
        V1.replace("0:29 / ", "0:29 /docker/1f "), V1_GROUPS.format("/"), {"cpu,cpuacct": "250000 100000"}, 2.5
    ),
    "v1, mounted at an odd place": (
        V1.replace("/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/odd\\040place"), V1_GROUPS.format("/"),
        {"odd place": "100000 50000"}, 2,
    ),
    "hybrid: the controller is in v1": (
        V1 + V2.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified "), V1_GROUPS.format("/a"),
        {"cpu,cpuacct/a": "100000 100000", "unified/user.slice": "max 100000"}, 1,
    ),
    "nothing is mounted": ("", "0::/\n", {}, None),
    "files that say nonsense": (V2, "0::/a\n", {"a": "many few", "": "1 0"}, None),
    "lines that say nonsense": ("x y\n", "nonsense\n", {}, None),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_least_quota_of_the_groups_counts(tmp_path, case):
    mountinfo, group, quotas, expected = CASES[case]
    assert cpu_quota(tree(tmp_path, mountinfo, group, quotas)) == expected


def test_where_there_are_no_groups(tmp_path):
    assert cpu_quota(tmp_path) is None


@pytest.mark.parametrize(("quota", "cpus", "expected"), [(None, 8, 8), (1.5, 8, 2), (0.1, 8, 1), (3, 2, 2), (1, 1, 1)])
def test_threads_of_a_quota(monkeypatch, quota, cpus, expected):
    monkeypatch.setattr(cpu, "cpu_quota", lambda: quota)
    monkeypatch.setattr(cpu.os, "sched_getaffinity", lambda _: range(cpus), raising=False)
    assert cpu.available_cpus() == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs sets of CPUs")
@pytest.mark.parametrize("cpus", [1, 2])
def test_the_cpus_of_a_process_decide_and_not_openmp(cpus):
    """Ray and Spark set OMP_NUM_THREADS, which ONNX Runtime ignores. No more threads than CPUs compute."""
    available = sorted(os.sched_getaffinity(0))
    if len(available) < cpus:
        pytest.skip("this machine has one CPU")
    code = (
        "import os, sys; os.sched_setaffinity(0, map(int, sys.argv[1:])); from moembed import Embedder\n"
        "before = len(os.listdir('/proc/self/task')) if os.path.isdir('/proc/self/task') else 0\n"
        "model = Embedder.from_pretrained(); model.encode(['a text'] * 64, prompt='')\n"
        "print(model.threads, before and len(os.listdir('/proc/self/task')) - before)"
    )
    found = []
    for number in ("1", "8"):
        command = [sys.executable, "-c", code, *map(str, available[:cpus])]
        done = subprocess.run(
            command, env=os.environ | {"OMP_NUM_THREADS": number}, capture_output=True, text=True, check=True
        )
        found.append(tuple(map(int, done.stdout.split())))
    assert found[0] == found[1]
    assert found[0][0] == cpus
    assert found[0][1] < cpus + 1, "this thread computes too"


def test_a_real_group(tmp_path):
    """A process in a group inside a group with a quota of one CPU."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("with one CPU a quota changes nothing")
    first, second = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
    base = (first if (first / "cpu.cfs_quota_us").exists() else second) / f"moembed-test-{os.getpid()}"
    inner = base / "inner"
    try:
        try:
            inner.mkdir(parents=True)
            if base.parent == first:
                (base / "cpu.cfs_quota_us").write_text("100000")
            else:
                (base / "cpu.max").write_text("100000 100000")
        except OSError as error:
            pytest.skip(f"no group can be made here: {error}")
        code = (
            "import os, pathlib, sys; pathlib.Path(sys.argv[1], 'cgroup.procs').write_text(str(os.getpid()));"
            "from moembed.inference.cpu import available_cpus; print(available_cpus())"
        )
        done = subprocess.run([sys.executable, "-c", code, inner], capture_output=True, text=True, check=False)
        if "OSError" in done.stderr:
            pytest.skip("this process may not enter the group")
        assert done.stdout == "1\n", done.stderr
    finally:
        for group in (inner, base):
            if group.exists():
                group.rmdir()
