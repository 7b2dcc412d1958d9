"""Workers and their supervisor: no worker outlives it, and signals stop both without a traceback."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from load import request
from processes import Process

from moembed.server.metrics import FOLDER_VARIABLE, shared_folder
from support.serving import BODIES, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
LONG = request("/embed", json.dumps(BODIES["/embed"](["word " * 300] * 800)).encode())
# Usually a second; longer on a busy machine.
DEADLINE = 10


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@contextlib.contextmanager
def started(*flags):
    """Run a server and keep its log; kill all its processes at the end."""
    process = Process("--threads", "1", *flags, keep_log=True)
    pids = set(process.pids)
    try:
        yield process
        pids |= set(process.pids) if not gone(process.pid) else set()
    finally:
        process.kill()
        for pid in pids - {process.pid}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def workers(process):
    return [pid for pid in process.pids[1:] if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Folder for temporary files."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def killed(process):
    """Kill the supervisor with SIGKILL; return the seconds until its workers have exited."""
    pids = workers(process)
    assert len(pids) == 2
    process.signal(signal.SIGKILL)
    start = time.monotonic()
    wait_until(lambda: all(map(gone, pids)), DEADLINE)
    return time.monotonic() - start


def is_free(port):
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen()
        return True


def test_workers_exit_when_the_supervisor_is_killed(scratch):
    with started("--workers", "2") as process:
        process.wait_until_ready()
        connection = process.connect()
        connection.sendall(LONG)
        wait_until(lambda: process.metric("moembed_queue_texts") > 10)
        (left_behind,) = scratch.glob("moembed-metrics-*")
        killed(process)
        wait_until(lambda: is_free(process.address))
    assert left_behind.exists()
    with started("--workers", "2") as process:
        process.wait_until_ready()
        wait_until(lambda: process.metric("moembed_workers") == 2)
        (own,) = scratch.glob("*moembed-metrics-*")
        assert own != left_behind
        process.signal()
        assert process.wait(30) == 0
    assert not own.exists()


def test_metrics_folder_of_a_running_server_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "moembed-metrics-dead").mkdir()
    (tmp_path / "moembed-metrics-file").touch()
    (tmp_path / "moembed-metrics-link").symlink_to(tmp_path)
    with shared_folder():
        living = Path(os.environ[FOLDER_VARIABLE])
        assert living.parent == tmp_path
        with shared_folder():
            assert living.exists()
            assert len(list(tmp_path.glob("*"))) == 4
        assert not (tmp_path / "moembed-metrics-dead").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"moembed-metrics-file", "moembed-metrics-link"}


def test_loading_workers_exit_too(scratch):
    with started("--workers", "2") as process:
        wait_until(lambda: len(workers(process)) == 2)
        killed(process)
        wait_until(lambda: is_free(process.address))


@pytest.mark.long
def test_blocked_workers_exit_too(scratch):
    """PR_SET_PDEATHSIG works in a stopped process, where a thread would notice nothing."""
    with started("--workers", "2") as process:
        process.wait_until_ready()
        wait_until(lambda: process.metric("moembed_workers") == 2)
        for pid in workers(process):
            os.kill(pid, signal.SIGSTOP)
        killed(process)


def test_workers_exit_by_the_pipe_without_pdeathsig(scratch):
    """As on systems without PR_SET_PDEATHSIG."""
    script = (
        "import multiprocessing, os, sys, time\n"
        "from moembed.server.parent import exit_with_parent\n"
        "def work():\n"
        "    sys.platform = 'darwin'\n"
        "    exit_with_parent()\n"
        "    print(os.getpid(), flush=True)\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.get_context('spawn').Process(target=work).start()\n"
        "    time.sleep(60)\n"
    )
    (scratch / "script.py").write_text(script)
    with subprocess.Popen([sys.executable, scratch / "script.py"], stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        assert not gone(worker)
        parent.kill()
        wait_until(lambda: gone(worker), DEADLINE)


T, I = signal.SIGTERM, signal.SIGINT  # noqa: E741 as in the names of the cases


@pytest.mark.parametrize("flags", [(), ("--workers", "2")], ids=["one", "workers"])
@pytest.mark.parametrize(
    ("signals", "code"),
    [
        pytest.param((T, I), 130, id="TI"),
        pytest.param((I, I), 130, id="II", marks=pytest.mark.long),
        pytest.param((T, T), 0, id="TT", marks=pytest.mark.long),
        pytest.param((I, T), 130, id="IT", marks=pytest.mark.long),
    ],
)
def test_signals_stop_the_server_without_a_traceback(flags, signals, code, scratch):
    """Busy for minutes: without the second SIGINT the server would wait for the drain timeout, long or short."""
    hurried = signals[1] == I
    with started("--drain-timeout", "600" if hurried else "1", *flags) as process:
        process.wait_until_ready()
        connection = process.connect()
        connection.sendall(LONG)
        wait_until(lambda: process.metric("moembed_queue_texts") > 10)
        process.signal(signals[0])
        # The second signal arrives during the shutdown.
        wait_until(lambda: any("Shutting down" in line.get("message", "") for line in process.log))
        process.signal(signals[1])
        assert process.wait(60) == code
        assert connection.recv(100)[9:12] == b"503"
        assert connection.recv(2**16) is not None
        assert "Traceback" not in json.dumps(process.log)
        texts = [line["message"] for line in process.log if line["event"] == "text"]
        assert texts == (["moembed: interrupted"] if code == 130 else [])
    assert not list(scratch.glob("*moembed-metrics-*"))


@pytest.mark.parametrize(
    "seconds", [0.25, *(pytest.param(delay, marks=pytest.mark.long) for delay in (0.0, 0.1, 0.5, 1.0))]
)
def test_ctrl_c_in_a_terminal_while_workers_import(seconds):
    """A terminal sends SIGINT to the workers too."""
    command = [sys.executable, "-m", "moembed", "serve", "--port", "0", "--workers", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert "listening" in process.stderr.readline()
            time.sleep(seconds)
            os.killpg(process.pid, signal.SIGINT)
            rest = process.communicate(timeout=60)[1]
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, rest.splitlines()[-1]) == (130, "moembed: interrupted")
    assert "Traceback" not in rest


@pytest.mark.parametrize("flags", [(), ("--workers", "2")], ids=["one", "workers"])
@pytest.mark.long
def test_signals_at_any_time(flags, count, scratch):
    """Two signals with random delays, after the first line of the log."""
    for seed in range(count):
        with started(*flags) as process:
            time.sleep(seed / count)
            process.signal(T)
            time.sleep((seed * 7 % count) / count * 0.5)
            with contextlib.suppress(ProcessLookupError):
                process.signal(I)
            # Before the server installs its handlers, a signal ends the process.
            assert process.wait(60) in (0, 130, -T)
            assert "Traceback" not in json.dumps(process.log)


@pytest.mark.long
def test_supervisor_killed_at_any_time(count, scratch):
    slowest = 0.0
    for seed in range(count):
        with started("--workers", "2") as process:
            wait_until(lambda: len(workers(process)) == 2)
            time.sleep(2 * seed / count)
            slowest = max(slowest, killed(process))
            wait_until(lambda: is_free(process.address))
    print(f"slowest: {slowest:.3f} s")
    with started("--workers", "2") as process:
        process.wait_until_ready()
        assert len(list(scratch.glob("*moembed-metrics-*"))) == 1
