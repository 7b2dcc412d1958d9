"""Downloads that are interrupted, stalled, altered or refused (N01 to N08, N10)."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from moembed.errors import CheckpointError, OutputError, SourceError
from moembed.hub import download as downloads
from moembed.hub import unfinished
from moembed.hub.download import download
from moembed.hub.fetch import Reporter, fetch
from moembed.hub.transport import UnreachableError
from moembed.hub.unfinished import PART, RECORD
from support.downloads import PATIENCE, SIZE, WEIGHTS, leftovers, ranges, source_of, stop_after
from support.hub_server import Fault, digest_of

_FETCH = """
import sys
from pathlib import Path
from moembed.hub.fetch import fetch, Reporter
fetch("acme/model", ["model.safetensors"], revision=None, into=Path(sys.argv[1]), reporter=Reporter(log=lambda line: None))
"""


def test_a_whole_file(served, client, source, target):
    seen = []
    assert download(client, source, target, progress=lambda *done: seen.append(done)) == digest_of(served.weights)
    assert target.read_bytes() == served.weights.read_bytes()
    assert seen[-1] == (SIZE, SIZE)
    assert leftovers(target) == []
    assert ranges(served) == [None]


def test_a_killed_process_goes_on_at_its_byte(served, tmp_path):  # N01, N03
    into = tmp_path / "into"
    environment = os.environ | {"HF_ENDPOINT": served.endpoint, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "*"}
    command = [sys.executable, "-c", _FETCH, str(into)]
    kept = 0
    for keep in (1_200_000, 700_000):
        served.faults[WEIGHTS] = Fault("stall", keep=keep, times=1)
        with subprocess.Popen(command, env=environment) as process:
            wait_for(lambda: into.exists() and size_of(into / (WEIGHTS + PART)) == kept + keep)  # noqa: B023
            process.send_signal(signal.SIGKILL)
        kept += keep
        assert sorted(path.name for path in into.iterdir()) == [WEIGHTS + PART, WEIGHTS + RECORD]
    done = subprocess.run(command, env=environment, timeout=60)
    assert done.returncode == 0
    assert ranges(served) == [None, "bytes=1200000-", "bytes=1900000-"]
    assert [path.name for path in into.iterdir()] == [WEIGHTS]
    assert digest_of(into / WEIGHTS) == digest_of(served.weights)


@pytest.mark.parametrize("reached", ["stall", "rate limit"])
def test_a_command_that_waits_ends_at_once(served, tmp_path, reached):  # N09
    faults = {
        "stall": Fault("stall", keep=1000),
        "rate limit": Fault("status", status=429, headers={"Retry-After": "60"}),
    }
    served.faults["config.json"] = faults[reached]
    environment = os.environ | {"HF_ENDPOINT": served.endpoint, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "*"}
    (served.weights.parent / "config.json").write_text("{" + " " * 2000 + "}")
    command = [sys.executable, "-m", "moembed", "pull", "acme/model"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: [request for request in served.requests if request.path == "config.json"])
        time.sleep(0.3)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert time.monotonic() - started < 5, (
        "the waits are 30 and 60 seconds; alone on a machine, it takes a fraction of one"
    )
    assert process.returncode == 130
    assert "Traceback" not in said


def wait_for(condition):
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def size_of(path):
    return path.stat().st_size if path.exists() else 0


@pytest.mark.parametrize("how", ["close", "reset", "stall"])
def test_a_connection_that_breaks_is_made_again(served, client, source, target, lines, how):  # N04
    served.faults[WEIGHTS] = Fault(how, keep=1_000_000, times=1)
    assert download(client, source, target) == digest_of(served.weights)
    assert len(ranges(served)) == 2
    assert ranges(served)[1] is not None
    assert len(lines) == 1
    assert "trying again" in lines[0]


@pytest.mark.parametrize("how", ["stall", "trickle"])
def test_a_transfer_that_stalls_for_good_is_an_error(served, client, source, target, how):  # N04
    served.faults[WEIGHTS] = Fault(how, keep=100_000)
    host = served.storage.removeprefix("http://")
    client = replace(client, patience=replace(PATIENCE, timeout=0.5, attempts=2))
    with pytest.raises(
        UnreachableError, match=rf"{WEIGHTS} .*{host} sent .*3,000,000 bytes are here after \d seconds; run it"
    ):
        download(client, source, target)
    assert len(ranges(served)) == 2
    served.faults.clear()
    assert download(client, source, target) == digest_of(served.weights), "the next run goes on"
    assert ranges(served)[-1] is not None


def test_wrong_bytes_of_the_right_size(served, client, source, target):  # N05
    served.faults[WEIGHTS] = Fault("flip", keep=1_500_000)
    with pytest.raises(SourceError, match=f"sha256 [0-9a-f]{{64}}, expected {digest_of(served.weights)}"):
        download(client, source, target)
    assert leftovers(target) == []
    served.faults.clear()
    assert download(client, source, target) == digest_of(served.weights), "without a delete by hand"


def test_wrong_bytes_of_a_small_file(served, client, tmp_path):  # N05
    """The hub's ETag of a small file is git's digest."""
    served.faults["config.json"] = Fault("flip", keep=3, times=1)
    with pytest.raises(SourceError, match="config.json .* has git digest"):
        fetch("acme/model", ["config.json"], revision=None, into=tmp_path / "into")
    assert list((tmp_path / "into").iterdir()) == []


@pytest.mark.parametrize("file", ["config.json", WEIGHTS])
def test_a_web_page_in_place_of_a_file(served, tmp_path, file):  # N06
    served.faults[file] = Fault("html")
    host = served.endpoint.removeprefix("http://")
    with pytest.raises(SourceError, match=rf"{host} sent a web page in place of {file} of acme/model: a login page"):
        fetch("acme/model", ["config.json", WEIGHTS], revision=None, into=tmp_path / "into", patience=PATIENCE)
    assert [path.name for path in (tmp_path / "into").rglob("*")] == ([] if file == "config.json" else ["config.json"])


def test_a_web_page_without_a_type(served, client, tmp_path, target):  # N06
    served.weights.write_bytes(b"\n\n<!DOCTYPE HTML><html>log in</html>")
    with pytest.raises(SourceError, match="sent a web page in place of"):
        download(client, source_of(served, size=None), target)
    assert leftovers(target) == []


def after(seconds):
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("wait", ["1", after, None, "soon"], ids=["seconds", "date", "none", "nonsense"])
def test_a_rate_limit_is_waited_for(served, client, source, target, lines, wait):  # N07
    value = wait(2) if callable(wait) else wait
    served.faults[WEIGHTS] = Fault("status", status=429, times=2, headers={"Retry-After": value} if value else {})
    started = time.monotonic()
    assert download(client, source, target) == digest_of(served.weights)
    assert len(lines) == 2
    assert "limits the rate of requests (status 429)" in lines[0]
    if wait == "1":
        assert time.monotonic() - started >= 1.9


@pytest.mark.parametrize("wait", ["3600", after], ids=["seconds", "date"])
def test_a_long_rate_limit_is_an_error_at_once(served, client, source, target, wait):  # N07
    served.faults[WEIGHTS] = Fault(
        "status", status=429, headers={"Retry-After": wait(3600) if callable(wait) else wait}
    )
    started = time.monotonic()
    with pytest.raises(UnreachableError, match=r"HF_TOKEN.*HF_ENDPOINT; it asks to wait 3,[56]\d\d seconds"):
        download(client, source, target)
    assert time.monotonic() - started < 2
    assert len(served.requests) == 1


def test_a_rate_limit_for_ever_is_an_error(served, client, source, target):  # N07
    served.faults[WEIGHTS] = Fault("status", status=429)
    with pytest.raises(UnreachableError, match="status 429"):
        download(client, source, target)
    assert len(served.requests) == PATIENCE.attempts


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_busy_hub_is_asked_again(served, client, source, target, status):  # N07
    served.faults[WEIGHTS] = Fault("status", status=status, times=1)
    assert download(client, source, target) == digest_of(served.weights)


def test_a_pin_that_differs_is_refused_before_the_weights_are_sent(served, tmp_path):  # N08
    pin = "0" * 64
    with pytest.raises(
        CheckpointError, match=f"{WEIGHTS} .* has sha256 {digest_of(served.weights)}, expected {pin}.*revision"
    ):
        fetch("acme/model", [WEIGHTS], revision=served.commit, sha256={WEIGHTS: pin}, into=tmp_path / "into")
    assert [request.method for request in served.requests] == ["HEAD"]
    assert served.stored == []
    assert not (tmp_path / "into").exists()


def test_a_pinned_commit_that_is_gone(served, tmp_path):  # N08
    with pytest.raises(SourceError, match="acme/model has no revision 1111.*pass one of its commits, tags or branches"):
        fetch("acme/model", [WEIGHTS], revision="1" * 40, into=tmp_path / "into")
    assert len(served.requests) == 1, "no loop"


def test_what_is_to_be_downloaded_is_told_before(served, tmp_path):

    def refuse(name, size):
        raise OutputError(f"{name} needs {size} bytes")

    with pytest.raises(OutputError, match=f"{WEIGHTS} needs {SIZE} bytes"):
        fetch("acme/model", [WEIGHTS], revision=None, into=tmp_path, reporter=Reporter(before=refuse))
    assert served.stored == []


def test_a_second_process_waits_and_uses_the_first_ones_file(served, client, source, target, lines):
    served.faults[WEIGHTS] = Fault("stall", keep=500_000, times=1)
    found = []
    threads = [threading.Thread(target=lambda: found.append(download(client, source, target))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [digest_of(served.weights)] * 3
    assert len(ranges(served)) == 2, "one download, which stalled once"
    assert sum("waiting for another process" in line for line in lines) == 2


def test_a_file_that_was_finished_before_the_open_is_not_downloaded_again(served, client, source, target, monkeypatch):
    """Another process finishes between this one's look for the file and its opening of the unfinished one, which is new."""
    opening = os.open

    def late(path, *arguments, **options):
        if str(path).endswith(PART):
            monkeypatch.setattr(os, "open", opening)
            target.write_bytes(served.weights.read_bytes())
        return opening(path, *arguments, **options)

    monkeypatch.setattr(os, "open", late)
    assert download(client, source, target) == digest_of(served.weights)
    assert leftovers(target) == []
    assert served.requests == []


def test_a_file_that_was_finished_before_the_lock_is_not_emptied(served, client, source, target, monkeypatch):
    """Another process renames the unfinished file between this one's opening and locking it."""
    lock = unfinished.try_lock

    def late(file):
        monkeypatch.setattr(unfinished, "try_lock", lock)
        part = target.with_name(WEIGHTS + PART)
        part.write_bytes(served.weights.read_bytes())
        part.rename(target)
        lock(file)
        # As if the name had been free already when the second lock was tried.
        part.touch()

    monkeypatch.setattr(unfinished, "try_lock", late)
    assert download(client, source, target) == digest_of(served.weights)
    assert target.read_bytes() == served.weights.read_bytes()
    assert served.requests == []


@pytest.mark.parametrize("broken", ["always", "ENOLCK"])
def test_a_file_system_without_locks(served, client, source, target, monkeypatch, broken):  # N35
    def lock(_file):
        if broken == "ENOLCK":
            raise OSError(37, "No locks available")

    monkeypatch.setattr("moembed.hub.unfinished.try_lock", lock)
    checked = []
    digest = downloads._digest_of
    monkeypatch.setattr(downloads, "_digest_of", lambda path: checked.append(path) or digest(path))
    assert download(client, source, target) == digest_of(served.weights)
    assert len(checked) == 1, "what is on the disk was hashed too"


def test_a_full_disk_keeps_what_is_there(served, client, source, target, monkeypatch):  # N38
    write = downloads._Transfer._write

    def full(self, piece):
        if self._done > 1_000_000:
            raise OSError(28, "No space left on device")
        write(self, piece)

    monkeypatch.setattr(downloads._Transfer, "_write", full)
    with pytest.raises(OutputError, match="cannot write .*No space left on device; free some space, then run it again"):
        download(client, source, target)
    monkeypatch.undo()
    assert download(client, source, target) == digest_of(served.weights)
    assert ranges(served)[-1] is not None


def test_only_one_unfinished_file_stays(served, tmp_path):  # N03
    into = tmp_path / "into"
    folder = served.weights.parent
    (folder / "other.safetensors").write_bytes(os.urandom(SIZE))
    for name in (WEIGHTS, "other.safetensors", WEIGHTS):
        with pytest.raises(KeyboardInterrupt):
            fetch(
                "acme/model",
                [name],
                revision=None,
                into=into,
                reporter=Reporter(progress=lambda _name, *done: stop_after(9)(*done)),
            )
        assert sorted(path.name for path in into.iterdir()) == [name + PART, name + RECORD]
    fetch("acme/model", [WEIGHTS], revision=None, into=into)
    assert [path.name for path in into.iterdir()] == [WEIGHTS]


def test_an_interrupt_ends_a_wait(served, client, source, target):  # N09
    served.faults[WEIGHTS] = Fault("status", status=429, headers={"Retry-After": "2"})
    ticks = []

    def progress(done, total):
        ticks.append(time.monotonic())
        if len(ticks) == 2:
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        download(client, source, target, progress=progress)
    assert time.monotonic() - started < 1
