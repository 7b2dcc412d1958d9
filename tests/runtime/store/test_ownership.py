"""Ownership of a model's folder: real processes that wait, are killed, are stopped, and file systems without locks."""

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from moembed.files import locks
from moembed.store import ownership
from moembed.store.ownership import LOCK_FILE, is_owned, owning, status_of

HOLD = """
import sys, time
from pathlib import Path
from moembed.store.ownership import owning
with owning(Path(sys.argv[1]), lambda *_: None) as owner:
    owner.report("downloading", 5, 9)
    time.sleep(1.2)  # until a beat has written it
    print("owned", owner.exclusive, flush=True)
    sys.stdin.read()
"""
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs signals of POSIX")


@pytest.fixture
def holder(tmp_path):
    """Process that owns the folder until its stdin is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "owned True\n"
    yield process
    process.kill()
    process.wait()


class Waits:
    """Record of what a waiting process was told."""

    def __init__(self, after=lambda: None):
        self.calls, self._after = [], after

    def __call__(self, status, file, seconds):
        self.calls.append((status, file, seconds))
        self._after()


def test_the_second_waits_and_sees_the_first(holder, tmp_path):
    """N33"""
    waits = Waits(lambda: holder.stdin.close() if len(waits.calls) == 3 else None)
    with owning(tmp_path, waits) as owner:
        assert owner.exclusive
        assert owner.before is None, "the first one ended properly"
    status, file, _ = waits.calls[0]
    assert (status.pid, status.host, status.step, status.done, status.total) == (
        holder.pid, socket.gethostname(), "downloading", 5, 9,
    )  # fmt: skip
    assert status.owner == f"process {holder.pid} on {socket.gethostname()}"
    assert file == tmp_path / LOCK_FILE
    assert list(tmp_path.iterdir()) == [], "no lock file stays"


def test_waiting_can_be_stopped(holder, tmp_path):
    """N09: in the lock wait."""

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), owning(tmp_path, Waits(stop)):
        pytest.fail("it is owned")
    assert is_owned(tmp_path)


@posix
def test_the_lock_of_a_killed_process_is_taken_over_at_once(holder, tmp_path):
    """N34, N41: the next owner knows what the killed one did."""
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK_FILE).exists()
    assert not is_owned(tmp_path)
    started, waits = time.monotonic(), Waits()
    with owning(tmp_path, waits) as owner:
        assert (owner.before.pid, owner.before.step) == (holder.pid, "downloading")
    assert waits.calls == []
    assert time.monotonic() - started < 3


@posix
def test_a_stopped_owner_is_not_waited_for_for_ever(holder, tmp_path, monkeypatch):
    """N34: also an owner whose host is gone, while a server of NFS keeps its lock."""
    monkeypatch.setattr(ownership, "_PATIENCE_SECONDS", 1.5)
    holder.send_signal(signal.SIGSTOP)
    waits = Waits()
    with owning(tmp_path, waits) as owner:
        assert owner.exclusive
        assert len(waits.calls) > 5
        holder.send_signal(signal.SIGCONT)
        holder.stdin.close()
        assert holder.wait(20) == 0
        assert status_of(tmp_path).pid == os.getpid(), "the old owner leaves the new one's lock file alone"


@pytest.mark.parametrize("content", [b"", b"12345", b"\xff\x00", b"[]", b'{"pid": "x"}', b"{" * 5000], ids=str)
def test_a_lock_file_of_another_version_is_taken_over(tmp_path, content):
    """N34"""
    (tmp_path / LOCK_FILE).write_bytes(content)
    with owning(tmp_path, Waits()) as owner:
        assert owner.exclusive
        assert owner.before is None
        assert status_of(tmp_path).pid == os.getpid()


def foreign(path, pid=1):
    path.write_text(json.dumps({"pid": pid, "host": "elsewhere", "step": "quantizing", "done": 0, "total": 0}))


def test_the_lock_file_of_another_host_is_taken_over_without_a_sign_of_life(tmp_path, monkeypatch):
    """N34: the lock of a host may not reach another one."""
    monkeypatch.setattr(ownership, "_FOREIGN_SECONDS", 0.5)
    foreign(tmp_path / LOCK_FILE)
    with owning(tmp_path, Waits()) as owner:
        assert owner.exclusive
        assert owner.before.host == "elsewhere"


def test_an_owner_on_another_host_is_waited_for_while_it_lives(tmp_path, monkeypatch):
    """N35: `flock` succeeds although another host has locked the file (NFS with local locks)."""
    monkeypatch.setattr(ownership, "_FOREIGN_SECONDS", 0.5)
    path, ended = tmp_path / LOCK_FILE, threading.Event()
    foreign(path)

    def live():
        while not ended.wait(0.05):
            os.utime(path)

    thread = threading.Thread(target=live)
    thread.start()
    end = time.monotonic() + 1.5
    waits = Waits(lambda: ended.set() if time.monotonic() > end else None)
    with owning(tmp_path, waits) as owner:
        assert owner.exclusive
        assert time.monotonic() > end
    thread.join()
    assert waits.calls[0][0].owner == "process 1 on elsewhere"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(tmp_path, monkeypatch, number):
    """N35"""

    def refuse(_file):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(ownership, "try_lock", refuse)
    started = time.monotonic()
    with owning(tmp_path, Waits()) as first, owning(tmp_path, Waits()) as second:
        assert not first.exclusive
        assert not second.exclusive
    assert time.monotonic() - started < 3, "no hang"


def test_locks_that_do_nothing_are_noticed(tmp_path, monkeypatch):
    """N35"""
    monkeypatch.setattr(ownership, "try_lock", lambda _file: None)
    monkeypatch.setattr(locks, "try_lock", lambda _file: None)
    with owning(tmp_path, Waits()) as first, owning(tmp_path, Waits()) as second:
        assert not first.exclusive
        assert not second.exclusive


def test_threads_of_a_process_exclude_each_other(tmp_path):
    """N33"""
    inside, most, lock = 0, 0, threading.Lock()

    def work():
        nonlocal inside, most
        with owning(tmp_path, Waits()):
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.05)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == 1


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="needs root, to be two users")
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_the_lock_file_of_another_user_is_taken_over(request, mode):
    """N32, N34: a killed process of a user with umask 077, in a folder that both may write to."""
    folder = Path(tempfile.mkdtemp())  # not in pytest's folder, which only its owner may enter
    request.addfinalizer(lambda: shutil.rmtree(folder))
    folder.chmod(0o777)
    path = folder / LOCK_FILE
    path.write_text("{}")
    path.chmod(mode)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgid(54321)
            os.setuid(54321)
            ownership._FOREIGN_SECONDS = 0.5
            with owning(folder, Waits()) as owner:
                code = 0 if owner.exclusive and path.stat().st_uid == 54321 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
