"""Progress: lines where there is no terminal, one line that changes on a terminal."""

import contextlib
import os
import sys

import pytest

from moembed.pull import report
from moembed.pull.report import LineReporter, Reporter, TerminalReporter, default_reporter

GB = 10**9


@pytest.fixture
def clock(monkeypatch):
    """Clock that a test sets: `clock[0] += seconds`."""
    now = [1000.0]
    # Not in `time`, whose clock the event loops of other fixtures read.
    monkeypatch.setattr(report, "monotonic", lambda: now[0])
    return now


def test_a_line_per_tenth(clock):
    """N48: with bytes, step and time left."""
    lines = []
    reporter = LineReporter(lines.append)
    reporter.step("downloading model.safetensors of acme/ft")
    for percent in range(101):
        clock[0] += 0.05
        reporter.progress(percent * GB // 50, 2 * GB)
    assert lines[0] == "moembed: downloading model.safetensors of acme/ft"
    assert lines[5] == "moembed: downloading model.safetensors of acme/ft: 1.00 GB of 2.00 GB, 50 %, 2 s left"
    assert len(lines) == 11
    assert not any("\r" in line for line in lines)


def test_a_line_per_ten_seconds(clock):
    """N48: of a slow download."""
    lines = []
    reporter = LineReporter(lines.append)
    reporter.step("downloading")
    for second in range(61):
        clock[0] += 1
        reporter.progress(second * 1000, GB)
    assert len(lines) == 7
    assert lines[-1] == "moembed: downloading: 59 kB of 1.00 GB, 0 %, 277.8 h left"


def test_the_time_left_is_that_of_the_bytes_that_were_sent_now(clock):
    """N01: a download that goes on from the middle has not been fast before."""
    lines = []
    reporter = LineReporter(lines.append)
    reporter.step("downloading")
    reporter.progress(GB, 2 * GB)
    clock[0] += 100
    reporter.progress(GB + GB // 10, 2 * GB)
    assert lines[-1].endswith("1.10 GB of 2.00 GB, 55 %, 15 min left")


def test_a_repeated_note_is_written_once():
    lines = []
    reporter = LineReporter(lines.append)
    for text in ("asking", "asking", "waiting", "asking"):
        reporter.note(text)
    assert lines == ["moembed: asking", "moembed: waiting", "moembed: asking"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal of POSIX")
def test_one_line_that_changes_on_a_terminal(monkeypatch, clock):
    """N48"""
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("COLUMNS", "40")
        reporter = default_reporter()
        assert isinstance(reporter, TerminalReporter)
        reporter.step("downloading")
        for done in (0, GB, 2 * GB):
            clock[0] += 2
            reporter.progress(done, 2 * GB)
        reporter.note("done")
    content = b""
    with contextlib.suppress(OSError):  # the end, as Linux tells it
        while part := os.read(ours, 10_000):
            content += part
    os.close(ours)
    written = content.decode().replace("\r\n", "\n")
    assert written.split("\n")[0] == "moembed: downloading"
    drawn = written.split("\n")[1].split("\r")
    assert drawn[2].startswith("  1.00 GB of 2.00 GB, 50 %, 2 s left")
    assert max(map(len, drawn)) < 40, "a line that wraps cannot be drawn over"
    assert drawn[-1] == "moembed: done"
    assert set(drawn[-2]) == {" "}, "the line is cleared"


@pytest.mark.parametrize("stream", [None, "closed", "full"])
def test_a_stderr_that_takes_nothing_is_no_obstacle(monkeypatch, tmp_path, stream):
    """N48: a service without stderr."""
    opened = None
    if stream == "closed":
        opened = (tmp_path / "x").open("w")
        opened.close()
    elif stream == "full":
        opened = open("/dev/full", "w")  # noqa: PTH123, SIM115
    monkeypatch.setattr(sys, "stderr", opened)
    reporter = default_reporter()
    reporter.step("downloading")
    reporter.progress(1, 2)
    reporter.note("note")
    monkeypatch.undo()


def test_quiet():
    """N48"""
    reporter = Reporter()
    reporter.step("a")
    reporter.progress(1, 2)
    reporter.note("b")
