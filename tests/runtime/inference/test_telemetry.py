"""Telemetry of ONNX Runtime is off: no requests, no files outside our folders, and no thread.

Every process here gets a new home and an environment without `CI`, which by itself turns that telemetry off.
"""

import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import onnxruntime
import pytest

from moembed.inference.telemetry import FIRST_VERSION, VARIABLE
from support.serving import Server, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
reporting = pytest.mark.skipif(
    tuple(map(int, onnxruntime.__version__.split(".")[:2])) < FIRST_VERSION,
    reason="this onnxruntime has no telemetry that could be seen",
)
MAKER = ".cache/Microsoft"
EMBED = "from moembed import Embedder; Embedder.from_pretrained(local_files_only=True, threads=1).encode_query('x')"
# Threads and open files before and after onnxruntime and a run of it in the same thread.
GROWTH = f"""
import os, numpy, moembed
before = [len(os.listdir(f"/proc/self/{{kind}}")) for kind in ("task", "fd")]
{EMBED}
print([len(os.listdir(f"/proc/self/{{kind}}")) - n for kind, n in zip(("task", "fd"), before)])
"""


def environment(home: Path, **more: str) -> dict[str, str]:
    home.mkdir(exist_ok=True)
    return {"PATH": os.environ["PATH"], "HOME": str(home), "MOEMBED_CACHE": str(home / "ours"), **more}


def python(home: Path, script: str, *, trace: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    command = [*traced(trace), sys.executable, "-c", script]
    return subprocess.run(
        command, env=environment(home, **more), capture_output=True, text=True, timeout=120, check=False
    )


def traced(trace: Path | None) -> list[str]:
    calls = "trace=connect,sendto,sendmsg,sendmmsg,open,openat,creat,mkdir,mkdirat"
    # -D: the process started is the traced one, and strace its grandchild.
    return ["strace", "-D", "-f", "-q", "-s", "300", "-o", str(trace), "-e", calls] if trace else []


def leaks(trace: Path, ours: Path) -> list[str]:
    """List connections, and files written outside our folder except devices and files of Python itself."""
    wait_until(lambda: trace.read_text(errors="replace").rstrip().endswith("+++"))
    found = []
    for line in trace.read_text(errors="replace").splitlines():
        if re.search(r"sa_family=AF_INET6?\b", line) and "127.0.0.1" not in line:
            found.append(line)
        made = re.search(r'(?:open|openat|creat|mkdir|mkdirat)\((?:[^,"]*, )?"([^"]*)"(.*)', line)
        if made and ("O_CREAT" in made[2] or "mkdir" in line or "creat(" in line) and " = -1 " not in line:
            path = Path(made[1])
            if not (path.is_relative_to(ours) or "__pycache__" in path.parts or path.is_relative_to("/dev")):
                found.append(line)
    return found


@strace
@pytest.mark.parametrize(
    "command",
    [
        ["-c", EMBED],
        ["-m", "moembed", "embed", "hello", "--task", "query"],
        ["-m", "moembed", "doctor"],
    ],
    ids=["python", "embed", "doctor"],
)
def test_nothing_leaves_the_machine(command, tmp_path):
    home, trace = tmp_path / "home", tmp_path / "trace"
    subprocess.run(
        [*traced(trace), sys.executable, *command],
        env=environment(home),
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert "openat" in trace.read_text(errors="replace")
    assert leaks(trace, home / "ours") == []
    assert {path.name for path in home.iterdir()} <= {"ours"}


@strace
@pytest.mark.parametrize("workers", ["1", "2"])
def test_nor_from_a_server_and_its_workers(workers, tmp_path):
    home, trace = tmp_path / "home", tmp_path / "trace"
    serve = ["-m", "moembed", "serve", "--port", "0", "--threads", "1", "--workers", workers]
    process = subprocess.Popen(
        [*traced(trace), sys.executable, *serve],
        env=environment(home, TMPDIR=str(home / "ours")),
        stderr=subprocess.PIPE,
        text=True,
    )
    (home / "ours").mkdir()
    port: list[int] = []

    def read_log() -> None:
        for line in process.stderr:
            if found := re.search(r"127\.0\.0\.1', (\d+)", line):
                port.append(int(found[1]))

    reader = threading.Thread(target=read_log, daemon=True)
    reader.start()
    try:
        wait_until(lambda: port and Server(port[0]).get("/ready").status == 200, 60)
        assert Server(port[0]).post("/v1/embeddings", {"model": "moembed:query", "input": ["x"]}).status == 200
    finally:
        process.terminate()
        process.wait(60)
    reader.join(10)
    assert leaks(trace, home / "ours") == []
    assert {path.name for path in home.iterdir()} == {"ours"}


def test_no_thread_and_no_descriptor_of_it_lives(tmp_path):
    done = python(tmp_path / "home", GROWTH)
    # Two mapped files: neither keeps its descriptor.
    assert (done.stdout.strip(), done.stderr) == ("[0, 0]", "")


def test_a_home_that_cannot_be_written_brings_no_warning(tmp_path):
    home = tmp_path / "file"
    home.write_text("")
    done = subprocess.run(
        [sys.executable, "-c", EMBED],
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@reporting
def test_a_value_that_the_user_set_stays(tmp_path):
    done = python(tmp_path / "home", GROWTH, **{VARIABLE: "0"})
    assert (tmp_path / "home" / MAKER).exists(), "else these tests could not fail"
    assert done.stdout.strip() != "[0, 0]"
    assert done.stderr == "", "who asks for it needs no warning"


@pytest.mark.parametrize("value", ["1", "true"])
def test_a_value_that_turns_it_off_stays(value, tmp_path):
    script = f"import moembed, os; print(os.environ[{VARIABLE!r}])"
    assert python(tmp_path / "home", script, **{VARIABLE: value}).stdout.strip() == value


@reporting
@pytest.mark.parametrize(
    ("first", "warned"),
    [
        ("import onnxruntime", True),
        ("import onnxruntime; onnxruntime.disable_telemetry_events()", True),  # too late as well
        (f"import os; os.environ[{VARIABLE!r}] = '1'; import onnxruntime", False),
        ("import moembed, onnxruntime", False),
    ],
)
def test_onnxruntime_imported_first(first, warned, tmp_path):
    done = python(tmp_path / "home", f"{first}\n{EMBED}\n{EMBED}")
    assert done.returncode == 0
    assert done.stderr.count("TelemetryWarning") == warned
    assert (tmp_path / "home" / MAKER).exists() == warned


@strace
@reporting
@pytest.mark.long
@pytest.mark.parametrize("asked", ["0", ""])
def test_for_as_long_as_a_report_takes(asked, tmp_path):
    """The first report is sent after some seconds: with the telemetry on, to see that this would be noticed, and as it comes."""
    home, trace = tmp_path / "home", tmp_path / "trace"
    python(home, f"{EMBED}\nimport time; time.sleep(20)", trace=trace, **{VARIABLE: asked})
    found = [line for line in leaks(trace, home / "ours") if "AF_INET" in line]
    assert bool(found) == (asked == "0")
